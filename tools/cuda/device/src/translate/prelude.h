/* What every translated kernel starts with. `src/kernel.rs` has the same structures in Rust. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* State of one byte of shared memory. Times are those of `Block`. */
typedef struct {
    uint32_t write_time, read_time; uint16_t writer, reader;
    /* The group of the `cp.async` that its writer has not waited for, or 0. At the first byte of a copy, the size << 24, and
       1 + the address of the copy that the thread began before. */
    uint32_t copy, before;
} SharedByte;
enum { MANY = 0xffff, MANY_OF_WARP = 0x8000, ATOMIC = 0x7fff };

/* What the threads of a block share. The time grows at each barrier. */
typedef struct {
    uint8_t *shared; SharedByte *bytes; uint32_t size;
    uint32_t start, time, last_barrier, last_sync[32];
} Block;

typedef struct Context {
    uint32_t tid[3], ntid[3], ctaid[3], nctaid[3];
    uint32_t thread;
    const uint8_t *params;
    Block *block;
    uint64_t read, written;
    /* A request to the scheduler, and its reply. */
    uint32_t kind, mode, mask, a, b, clamp, line, reply, reply_pred;
    /* The group of the next `cp.async`, from 1, and 1 + the address of the last one that was not waited for. */
    uint32_t copy_group, last_copy;
    const uint32_t *in; uint32_t *out;
    void (*suspend)(struct Context *);
    /* Reports an access that failed its check. Returns if the address is a constant of the kernel. */
    void (*bad)(struct Context *, uint32_t kind, uint64_t address, uint32_t bytes, uint32_t line);
    void (*trap)(struct Context *, uint32_t line, const char *text, const char *file, uint32_t file_line);
    const void *kernel; void *scheduler;
} Context;
enum { BAD_READ, BAD_WRITE, BAD_SHARED_BOUNDS, BAD_SHARED_UNWRITTEN, BAD_SHARED_RACE, BAD_SHARED_ALIGN, BAD_LOCAL, BAD_SHARED_COPY };
enum { BARRIER = 1, SHUFFLE, VOTE, REDUCE, SYNC, MATRIX, LOAD_MATRIX };

/* ---- global memory. A shadow byte is 0 outside of allocations, 1 inside, and 3 after a write. */
#define ARENA_BASE 0x100000000000ull
#define ARENA_SIZE 0x040000000000ull
#define SHARED_WINDOW 0x080000000000ull

static inline int allocated(uint64_t a, uint32_t n, uint64_t bits) {
    const void *s = (const void *)(a + ARENA_SIZE);
    bits *= 0x0101010101010101ull;
    uint64_t x = 0, y = bits; uint32_t w; uint16_t h;
    switch (n) {
    case 1: return (*(const uint8_t *)s & bits & 0xff) == (bits & 0xff);
    case 2: memcpy(&h, s, 2); return (h & bits & 0xffff) == (bits & 0xffff);
    case 4: memcpy(&w, s, 4); return (w & bits & 0xffffffff) == (bits & 0xffffffff);
    case 8: memcpy(&x, s, 8); return (x & bits) == bits;
    default: memcpy(&x, s, 8); memcpy(&y, (const char *)s + 8, 8); return (x & y & bits) == bits;
    }
}
static inline void check_load(Context *c, uint64_t a, uint32_t n, uint32_t line) {
    if (unlikely(a - ARENA_BASE >= ARENA_SIZE || (a & (n - 1)) || !allocated(a, n, 3))) c->bad(c, BAD_READ, a, n, line);
}
static inline void check_store(Context *c, uint64_t a, uint32_t n, uint32_t line) {
    if (unlikely(a - ARENA_BASE >= ARENA_SIZE || (a & (n - 1)) || !allocated(a, n, 1))) c->bad(c, BAD_WRITE, a, n, line);
    memset((void *)(a + ARENA_SIZE), 3, n);
}

/* ---- shared memory */
static inline int shared_at(Context *c, uint64_t a, uint32_t n, uint32_t line) {
    if (unlikely(a + n > c->block->size)) c->bad(c, BAD_SHARED_BOUNDS, a, n, line);
    if (unlikely(a & (n - 1))) c->bad(c, BAD_SHARED_ALIGN, a, n, line);
    return 1;
}
/* Whether nothing orders what `other` did at `time` before the access of this thread. */
static inline int races(const Context *c, uint32_t time, uint32_t other) {
    const Block *b = c->block; uint32_t me = c->thread, warp = me / 32;
    if (time < b->last_barrier || other == me) return 0;
    int same = other < ATOMIC ? other / 32 == warp : other != MANY && other != ATOMIC && other - MANY_OF_WARP == warp;
    return !(same && time < b->last_sync[warp]);
}
static void check_shared_load(Context *c, uint64_t a, uint32_t n, uint32_t line) {
    Block *b = c->block; uint32_t me = c->thread;
    shared_at(c, a, n, line);
    for (SharedByte *s = b->bytes + a, *end = s + n; s < end; s++) {
        if (unlikely(s->write_time < b->start)) c->bad(c, BAD_SHARED_UNWRITTEN, a, n, line);
        if (unlikely(s->copy)) c->bad(c, BAD_SHARED_COPY, a, n, line);
        if (unlikely(races(c, s->write_time, s->writer))) c->bad(c, BAD_SHARED_RACE, a, n, line);
        if (s->read_time >= b->last_barrier && s->reader != me) {
            uint32_t warp = me / 32, other = s->reader;
            int same = other < ATOMIC ? other / 32 == warp : other == (MANY_OF_WARP | warp);
            if (!same) s->reader = MANY;
            else s->reader = s->read_time < b->last_sync[warp] ? me : MANY_OF_WARP | warp;
        } else s->reader = me;
        s->read_time = b->time;
    }
}
static void check_shared_store(Context *c, uint64_t a, uint32_t n, uint32_t line) {
    Block *b = c->block;
    shared_at(c, a, n, line);
    for (SharedByte *s = b->bytes + a, *end = s + n; s < end; s++) {
        if (unlikely(s->write_time >= b->start && s->copy)) c->bad(c, BAD_SHARED_COPY, a, n, line);
        if (unlikely(s->write_time >= b->start && races(c, s->write_time, s->writer))) c->bad(c, BAD_SHARED_RACE, a, n, line);
        if (unlikely(s->read_time >= b->start && races(c, s->read_time, s->reader))) c->bad(c, BAD_SHARED_RACE, a, n, line);
        s->write_time = b->time; s->writer = c->thread; s->copy = 0;
    }
}
/* Atomics of several threads need no barrier between them. */
static void check_shared_atomic(Context *c, uint64_t a, uint32_t n, uint32_t line) {
    Block *b = c->block;
    shared_at(c, a, n, line);
    for (SharedByte *s = b->bytes + a, *end = s + n; s < end; s++) {
        if (unlikely(s->write_time < b->start)) c->bad(c, BAD_SHARED_UNWRITTEN, a, n, line);
        if (unlikely(s->copy)) c->bad(c, BAD_SHARED_COPY, a, n, line);
        if (unlikely(s->writer != ATOMIC && races(c, s->write_time, s->writer))) c->bad(c, BAD_SHARED_RACE, a, n, line);
        s->write_time = b->time; s->writer = ATOMIC;
    }
}
/* The bytes of a `cp.async` are not there before its thread waits. */
static void check_shared_copy(Context *c, uint64_t a, uint32_t n, uint32_t line) {
    check_shared_store(c, a, n, line);
    SharedByte *s = c->block->bytes + a;
    for (uint32_t i = 0; i < n; i++) s[i].copy = c->copy_group;
    s->before = c->last_copy | n << 24;
    c->last_copy = a + 1;
}
/* Waits for all groups but the open one and the `but` before it. The bytes then count as written now, so that other threads
   need a barrier after the wait. */
static void finish_copies(Context *c, uint32_t but) {
    Block *b = c->block; SharedByte *kept = 0; uint32_t at = c->last_copy;
    if (but >= c->copy_group) return;
    for (; at && b->bytes[at - 1].copy >= c->copy_group - but; at = kept->before & 0xffffff) kept = b->bytes + at - 1;
    if (kept) kept->before &= 0xff000000; else c->last_copy = 0;
    while (at) {
        SharedByte *s = b->bytes + at - 1;
        for (uint32_t i = 0, n = s->before >> 24; i < n; i++) { s[i].copy = 0; s[i].write_time = b->time; }
        at = s->before & 0xffffff;
    }
}

/* ---- numbers */
static inline float bits_f(uint32_t x) { float f; memcpy(&f, &x, 4); return f; }
static inline uint32_t f_bits(float f) { uint32_t x; memcpy(&x, &f, 4); return x; }
static inline double bits_d(uint64_t x) { double f; memcpy(&f, &x, 8); return f; }
static inline uint64_t d_bits(double f) { uint64_t x; memcpy(&x, &f, 8); return x; }
static inline float h2f(uint16_t h) { _Float16 f; memcpy(&f, &h, 2); return (float)f; }
static inline uint16_t f2h(float v) { if (v != v) return 0x7fff; _Float16 f = (_Float16)v; uint16_t h; memcpy(&h, &f, 2); return h; }
static inline float b2f(uint16_t b) { return bits_f((uint32_t)b << 16); }
static inline uint16_t f2b(float f) {
    uint32_t x = f_bits(f);
    return f != f ? 0x7fff : (uint16_t)((x + 0x7fff + ((x >> 16) & 1)) >> 16);
}
/* To f32, rounded to odd: a second rounding then gives what one rounding would. */
static inline float odd_f(double d) {
    float f = (float)d;
    if ((double)f == d || d != d || isinf(f)) return f;
    if (fabs((double)f) > fabs(d)) f = bits_f(f_bits(f) - 1);
    return bits_f(f_bits(f) | 1);
}
static inline uint16_t d2h(double d) { return f2h(odd_f(d)); }
static inline uint16_t d2b(double d) { return f2b(odd_f(d)); }
/* a + b in f64, rounded to odd. */
static inline double odd_add(double a, double b) {
    double s = a + b, t = s - a, e = (a - (s - t)) + (b - t);
    if (e == 0 || e != e || isinf(s) || (d_bits(s) & 1)) return s;
    return (e > 0) == (s > 0) ? bits_d(d_bits(s) + 1) : bits_d(d_bits(s) - 1);
}
static inline float ftz(float f) { return fabsf(f) < 1.17549435e-38f ? copysignf(0, f) : f; }
static inline double sat(double x) { return x > 0 ? (x < 1 ? x : 1) : 0; }
static inline double relu(double x) { return x > 0 ? x : 0; }
#define MINMAX(T, n, SIGN) \
    static inline T min_##n(T a, T b) { return a != a ? b : b != b ? a : a < b || (a == b && SIGN(a)) ? a : b; } \
    static inline T max_##n(T a, T b) { return a != a ? b : b != b ? a : a > b || (a == b && !SIGN(a)) ? a : b; } \
    static inline T min_nan_##n(T a, T b) { return a != a || b != b ? (T)NAN : min_##n(a, b); } \
    static inline T max_nan_##n(T a, T b) { return a != a || b != b ? (T)NAN : max_##n(a, b); }
MINMAX(float, f, signbit)
MINMAX(double, d, signbit)
static inline float dir_rz(double d) { float f = (float)d; return fabs((double)f) > fabs(d) ? nextafterf(f, 0) : f; }
static inline float dir_rm(double d) { float f = (float)d; return (double)f > d ? nextafterf(f, -INFINITY) : f; }
static inline float dir_rp(double d) { float f = (float)d; return (double)f < d ? nextafterf(f, INFINITY) : f; }
/* A result in f64 and its error, rounded in a direction. */
static inline double dird_rz(double s, double e) { return e != 0 && (e > 0) != (s > 0) ? nextafter(s, 0) : s; }
static inline double dird_rm(double s, double e) { return e < 0 ? nextafter(s, -INFINITY) : s; }
static inline double dird_rp(double s, double e) { return e > 0 ? nextafter(s, INFINITY) : s; }
static inline double add_error(double a, double b) { double s = a + b, t = s - a; return (a - (s - t)) + (b - t); }
static inline double mul_error(double a, double b) { return fma(a, b, -(a * b)); }
#define CLAMP(n, T, lo, hi) static inline T to_##n(double x) { \
    return x != x ? 0 : x <= (double)lo ? lo : x >= (double)hi ? hi : (T)x; }
CLAMP(u8, uint8_t, 0, UINT8_MAX) CLAMP(s8, int8_t, INT8_MIN, INT8_MAX)
CLAMP(u16, uint16_t, 0, UINT16_MAX) CLAMP(s16, int16_t, INT16_MIN, INT16_MAX)
CLAMP(u32, uint32_t, 0, UINT32_MAX) CLAMP(s32, int32_t, INT32_MIN, INT32_MAX)
CLAMP(u64, uint64_t, 0, UINT64_MAX) CLAMP(s64, int64_t, INT64_MIN, INT64_MAX)

/* ---- integers. A division by zero has no defined result, but must not end the program. */
#define DIVIDE(T, n) \
    static inline T div_##n(T a, T b) { return b == 0 ? (T)-1 : b == (T)-1 && (T)-1 < (T)1 ? (T)(0 - (uint64_t)a) : (T)(a / b); } \
    static inline T rem_##n(T a, T b) { return b == 0 ? a : b == (T)-1 && (T)-1 < (T)1 ? (T)0 : (T)(a % b); }
DIVIDE(uint16_t, u16) DIVIDE(int16_t, s16) DIVIDE(uint32_t, u32) DIVIDE(int32_t, s32) DIVIDE(uint64_t, u64) DIVIDE(int64_t, s64)
static inline uint32_t prmt(uint32_t a, uint32_t b, uint32_t s) {
    uint64_t x = ((uint64_t)b << 32) | a; uint32_t r = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t k = s >> (4 * i); uint8_t v = (uint8_t)(x >> (8 * (k & 7)));
        if (k & 8) v = (v & 0x80) ? 0xff : 0;
        r |= (uint32_t)v << (8 * i);
    }
    return r;
}
static inline uint32_t lop3(uint32_t a, uint32_t b, uint32_t c, uint32_t t) {
    uint32_t r = 0;
    for (int i = 0; i < 8; i++) if (t >> i & 1) r |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    return r;
}
static inline uint64_t bfe_u(uint64_t a, uint32_t at, uint32_t n, uint32_t bits) {
    at &= 255; n &= 255;
    if (n == 0 || at >= bits) return 0;
    return (a >> at) & (n >= 64 ? ~0ull : (1ull << n) - 1);
}
static inline int64_t bfe_s(int64_t a, uint32_t at, uint32_t n, uint32_t bits) {
    at &= 255; n &= 255;
    if (n == 0) return 0;
    uint32_t top = at + n - 1 < bits - 1 ? at + n - 1 : bits - 1;
    int64_t sign = -(int64_t)((uint64_t)a >> top & 1);
    if (at >= bits) return sign;
    uint64_t keep = n >= 64 ? ~0ull : (1ull << n) - 1, x = ((uint64_t)a & (bits == 32 ? 0xffffffffull : ~0ull)) >> at;
    uint64_t inside = bits - at >= 64 ? ~0ull : (1ull << (bits - at)) - 1;
    return (int64_t)((x & keep & inside) | ((uint64_t)sign & ~(keep & inside)));
}
static inline uint64_t bfi(uint64_t a, uint64_t b, uint32_t at, uint32_t n, uint32_t bits) {
    at &= 255; n &= 255;
    if (at >= bits || n == 0) return b;
    uint64_t mask = (n >= 64 ? ~0ull : (1ull << n) - 1) << at;
    return (b & ~mask) | ((a << at) & mask);
}
static inline int32_t dot4(uint32_t a, uint32_t b, int32_t c, int signed_a, int signed_b) {
    for (int i = 0; i < 32; i += 8) {
        int32_t x = signed_a ? (int8_t)(a >> i) : (uint8_t)(a >> i), y = signed_b ? (int8_t)(b >> i) : (uint8_t)(b >> i);
        c = (int32_t)((uint32_t)c + (uint32_t)(x * y));
    }
    return c;
}

/* ---- threads that wait for one another */
static inline uint32_t wait_for(Context *c, uint32_t kind, uint32_t mode, uint32_t mask, uint32_t a, uint32_t b,
                                uint32_t clamp, uint32_t line) {
    c->kind = kind; c->mode = mode; c->mask = mask; c->a = a; c->b = b; c->clamp = clamp; c->line = line;
    c->suspend(c);
    return c->reply;
}
