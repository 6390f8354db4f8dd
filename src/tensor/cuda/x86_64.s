# Lazy symbols for x86-64 (System V). `lazy library, name` defines `name`, which jumps to where its entry's first word
# points: to `first`, until the resolver has put the library's own function there.

.macro lazy library, name
    .pushsection .text.lsregen_cuda, "ax", @progbits
    .p2align 4
    .globl \name
    .hidden \name
    .type \name, @function
\name:
    lea r11, [rip + .Lentry_\name]
    jmp qword ptr [r11]
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
.p2align 4
.globl lsregen_cuda_first
.hidden lsregen_cuda_first
lsregen_cuda_first:
.Lfirst:
    push rbp
    mov rbp, rsp
    push rdi
    push rsi
    push rdx
    push rcx
    push r8
    push r9
    sub rsp, 128
    movaps [rsp], xmm0
    movaps [rsp + 16], xmm1
    movaps [rsp + 32], xmm2
    movaps [rsp + 48], xmm3
    movaps [rsp + 64], xmm4
    movaps [rsp + 80], xmm5
    movaps [rsp + 96], xmm6
    movaps [rsp + 112], xmm7
    mov rdi, r11
    call {resolve}
    mov r11, rax
    movaps xmm0, [rsp]
    movaps xmm1, [rsp + 16]
    movaps xmm2, [rsp + 32]
    movaps xmm3, [rsp + 48]
    movaps xmm4, [rsp + 64]
    movaps xmm5, [rsp + 80]
    movaps xmm6, [rsp + 96]
    movaps xmm7, [rsp + 112]
    add rsp, 128
    pop r9
    pop r8
    pop rcx
    pop rdx
    pop rsi
    pop rdi
    pop rbp
    jmp r11
.popsection

.pushsection .data.lsregen_cuda, "aw", @progbits
.p2align 3
.globl lsregen_cuda_entries
.hidden lsregen_cuda_entries
lsregen_cuda_entries:
.popsection
