# Lazy symbols for 64-bit Arm (AAPCS64). `lazy library, name` defines `name`, which jumps to where its entry's first
# word points: to `first`, until the resolver has put the library's own function there.

.macro lazy library, name
    .pushsection .text.lsregen_cuda, "ax", @progbits
    .p2align 2
    .globl \name
    .hidden \name
    .type \name, @function
\name:
    adrp x16, .Lentry_\name
    add x16, x16, :lo12:.Lentry_\name
    ldr x17, [x16]
    br x17
    .size \name, . - \name
    .popsection
    .pushsection .rodata.lsregen_cuda, "a", @progbits
.Lname_\name:
    .asciz "\name"
    .popsection
    .pushsection .data.lsregen_cuda, "aw", @progbits
.Lentry_\name:
    .quad .Lfirst, .Lname_\name, \library
    .popsection
.endm

# The first call, and while a profile is recorded every call: keeps every register that can carry an argument, asks for the address, and goes there.
.pushsection .text.lsregen_cuda, "ax", @progbits
.p2align 2
.globl lsregen_cuda_first
.hidden lsregen_cuda_first
lsregen_cuda_first:
.Lfirst:
    stp x29, x30, [sp, #-224]!
    mov x29, sp
    stp x0, x1, [sp, #16]
    stp x2, x3, [sp, #32]
    stp x4, x5, [sp, #48]
    stp x6, x7, [sp, #64]
    str x8, [sp, #80]
    stp q0, q1, [sp, #96]
    stp q2, q3, [sp, #128]
    stp q4, q5, [sp, #160]
    stp q6, q7, [sp, #192]
    mov x0, x16
    bl {resolve}
    mov x17, x0
    ldp x0, x1, [sp, #16]
    ldp x2, x3, [sp, #32]
    ldp x4, x5, [sp, #48]
    ldp x6, x7, [sp, #64]
    ldr x8, [sp, #80]
    ldp q0, q1, [sp, #96]
    ldp q2, q3, [sp, #128]
    ldp q4, q5, [sp, #160]
    ldp q6, q7, [sp, #192]
    ldp x29, x30, [sp], #224
    br x17
.popsection

.pushsection .data.lsregen_cuda, "aw", @progbits
.p2align 3
.globl lsregen_cuda_entries
.hidden lsregen_cuda_entries
lsregen_cuda_entries:
.popsection
