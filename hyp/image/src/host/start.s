// The built-in host's head, its entries at EL1, and its vectors. It runs at VA = PA.

    .section .head, "ax"
    // What hyp reads before it starts us: memory.rs, HostHead.
    b       host_start
    nop
    .ascii  "hyp-host"
    .quad   host_start
    .quad   __rodata_start, __rodata_end
    .quad   __bss_start, __bss_end

    .text
// x0: this CPU's number, 0 from hyp and what CPU_ON was given for the others.
    .global host_start
    .type host_start, %function
host_start:
    .cfi_startproc
    // Nobody called this: whoever unwinds is at the end here.
    .cfi_undefined x30
    // MAIR_EL1: attribute 0 Normal write-back, 1 Device-nGnRE.
    mov     x1, #0x04ff
    msr     mair_el1, x1
    // TCR_EL1: EPD1 (23), IPS 40 bits, SH0 3, ORGN0 1, IRGN0 1, T0SZ 25 (39 bits).
    ldr     x1, =(2 << 32 | 1 << 23 | 3 << 12 | 1 << 10 | 1 << 8 | 25)
    msr     tcr_el1, x1
    adrp    x1, HOST_TABLE
    add     x1, x1, :lo12:HOST_TABLE
    msr     ttbr0_el1, x1
    adr     x1, host_vectors
    msr     vbar_el1, x1
    tlbi    vmalle1
    dsb     nsh
    isb
    // SCTLR_EL1: RES1, M, C, I.
    ldr     x1, =(0x30d00800 | 1 << 0 | 1 << 2 | 1 << 12)
    msr     sctlr_el1, x1
    isb
    adrp    x1, STACKS
    add     x1, x1, :lo12:STACKS
    add     x2, x0, #1
    add     x1, x1, x2, lsl #{STACK_SHIFT}
    mov     sp, x1
    mov     x29, xzr
    bl      host_main
    // Never reached; the address after the call must still be this function's, for who unwinds.
    brk     #0
    .cfi_endproc
    .size host_start, . - host_start

    .balign 2048
host_vectors:
    .rept 4
    .balign 128
    b       host_stop
    .endr
    // A synchronous exception at EL1: a breakpoint of our own, or hyp has refused an access. Count it and go on after
    // the instruction.
    .balign 128
    stp     x0, x1, [sp, #-16]!
    stp     x2, x3, [sp, #-16]!
    mrs     x0, esr_el1
    // EC 0x3c, IL, and the immediate of BRK.
    mov     x1, #{BREAK}
    movk    x1, #0xf200, lsl #16
    adrp    x2, BREAKS
    add     x2, x2, :lo12:BREAKS
    cmp     x0, x1
    b.eq    1f
    lsr     x1, x0, #26
    // xFSC 0x10, external abort.
    and     x0, x0, #0x3f
    cmp     x0, #0x10
    b.ne    host_stop
    adrp    x2, ABORTS
    add     x2, x2, :lo12:ABORTS
    // EC 0x25, data abort from EL1.
    cmp     x1, #0x25
    b.eq    1f
    // EC 0x21, instruction abort from EL1: go on where that was called.
    cmp     x1, #0x21
    b.ne    host_stop
    sub     x0, x30, #4
    msr     elr_el1, x0
1:  ldxr    x0, [x2]
    add     x0, x0, #1
    stxr    w1, x0, [x2]
    cbnz    w1, 1b
    mrs     x0, elr_el1
    add     x0, x0, #4
    msr     elr_el1, x0
    ldp     x2, x3, [sp], #16
    ldp     x0, x1, [sp], #16
    eret
    .rept 11
    .balign 128
    b       host_stop
    .endr

// An exception this host does not expect. ESR_EL1, ELR_EL1 and FAR_EL1 tell which.
    .type host_stop, %function
host_stop:
    mrs     x0, esr_el1
    mrs     x1, elr_el1
    mrs     x2, far_el1
    b       host_unexpected
    .size host_stop, . - host_stop

    .ltorg
