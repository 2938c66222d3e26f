// EL2's exception vectors. The host's synchronous exceptions are handled; anything else is hyp's end.

// Frame, as vectors.rs has it: x0 to x30, ELR_EL2, SPSR_EL2, and 8 bytes that keep SP aligned.
.equ FRAME, 272

    .macro save_registers
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    mrs     x2, elr_el2
    stp     x30, x2, [sp, #240]
    mrs     x2, spsr_el2
    str     x2, [sp, #256]
    .endm

    .macro unexpected_from slot
    .balign 128
    sub     sp, sp, #FRAME
    stp     x0, x1, [sp]
    mov     x1, #\slot
    b       unexpected
    .endm

    .section .text.vectors, "ax"
    .balign 2048
    .global el2_vectors
el2_vectors:
    // From EL2 on SP_EL0, which hyp does not use: synchronous, IRQ, FIQ, SError.
    unexpected_from 0
    unexpected_from 1
    unexpected_from 2
    unexpected_from 3
    // From EL2 on SP_EL2.
    .balign 128
    b       own_sync
    unexpected_from 5
    unexpected_from 6
    unexpected_from 7
    // From the host.
    .balign 128
    b       host_sync_entry
    unexpected_from 9
    unexpected_from 10
    unexpected_from 11
    // From AArch32, which the host cannot use.
    unexpected_from 12
    unexpected_from 13
    unexpected_from 14
    unexpected_from 15

    .type host_sync_entry, %function
host_sync_entry:
    .cfi_startproc
    // The caller is at EL1, in another address space: unwinding ends here.
    .cfi_undefined x30
    sub     sp, sp, #FRAME
    .cfi_def_cfa sp, FRAME
    stp     x0, x1, [sp]
    save_registers
    // A frame record that ends the chain for whoever walks it by x29.
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, sp
    bl      host_sync
    ldp     x30, x2, [sp, #240]
    msr     elr_el2, x2
    ldr     x2, [sp, #256]
    msr     spsr_el2, x2
    ldp     x28, x29, [sp, #224]
    ldp     x26, x27, [sp, #208]
    ldp     x24, x25, [sp, #192]
    ldp     x22, x23, [sp, #176]
    ldp     x20, x21, [sp, #160]
    ldp     x18, x19, [sp, #144]
    ldp     x16, x17, [sp, #128]
    ldp     x14, x15, [sp, #112]
    ldp     x12, x13, [sp, #96]
    ldp     x10, x11, [sp, #80]
    ldp     x8, x9, [sp, #64]
    ldp     x6, x7, [sp, #48]
    ldp     x4, x5, [sp, #32]
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp]
    add     sp, sp, #FRAME
    eret
    .cfi_endproc
    .size host_sync_entry, . - host_sync_entry

// hyp itself faulted. If that was because its stack is used up, pushing a frame would fault again, for ever:
// stacks and their guards alternate, so one bit of SP tells which of the two it points to. x0 and SP are
// recovered from their sums, because there is no register to spare.
    .type own_sync, %function
own_sync:
    sub     sp, sp, #FRAME
    add     sp, sp, x0
    sub     x0, sp, x0
    tbz     x0, #{STACK_BIT}, 1f
    sub     x0, sp, x0
    sub     sp, sp, x0
    stp     x0, x1, [sp]
    mov     x1, #4
    b       unexpected
1:  // The report gets a stack of its own. TPIDR_EL0 is the host's, but the host will not run again.
    sub     x0, sp, x0
    msr     tpidr_el0, x0
    ldr     x0, =OVERFLOW_STACK + {OVERFLOW_STACK_SIZE} - FRAME
    mov     sp, x0
    mrs     x0, tpidr_el0
    stp     x0, x1, [sp]
    mov     x1, #16
    b       unexpected
    .size own_sync, . - own_sync

    .type unexpected, %function
unexpected:
    .cfi_startproc
    .cfi_signal_frame
    // The caller is the interrupted code: its address is in ELR_EL2.
    .cfi_def_cfa sp, FRAME
    .cfi_offset x29, -FRAME + 232
    .cfi_offset x30, -FRAME + 248
    save_registers
    mov     x0, sp
    bl      unexpected_exception
    // Never reached; the address after the call must still be this function's, for who unwinds.
    brk     #0
    .cfi_endproc
    .size unexpected, . - unexpected

    .ltorg
