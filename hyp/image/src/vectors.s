// EL2's exception vectors. The host's synchronous exceptions are handled; anything else is hyp's end, but for what
// the debugger asks for. With the feature `channel` there are two tables: `attached_vectors` is in use while a client is
// attached to the debugger, and lets it stop a CPU inside EL2; `el2_vectors` knows nothing of it.

// Frame, as vectors.rs has it: x0 to x30, then these. It keeps SP aligned.
.equ FRAME_ELR, 248
.equ FRAME_SPSR, 256
.equ FRAME_ESR, 264
.equ FRAME_HPFAR, 280
.equ FRAME_STEP, 288
.equ FRAME_SAVED, 296
.equ FRAME_HOST_SP, 304
.equ FRAME, 320

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
    str     x2, [sp, #FRAME_SPSR]
    .endm

    .macro unexpected_from slot
    .balign 128
    sub     sp, sp, #FRAME
    stp     x0, x1, [sp]
    mov     x1, #\slot
    b       unexpected
    .endm

    .macro return_to_interrupted
    ldp     x30, x2, [sp, #240]
    msr     elr_el2, x2
    ldr     x2, [sp, #FRAME_SPSR]
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
    .endm

    // Whoever unwinds finds the interrupted code: its registers are in the frame, its PC (column 32) in ELR's place.
    .macro frame_of_interrupted
    .cfi_signal_frame
    .cfi_def_cfa sp, FRAME
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
    .cfi_offset \n, -FRAME + 8 * \n
    .endr
    .cfi_offset 32, -FRAME + FRAME_ELR
    .endm

    // The host's stack pointer is not the frame's end. The debugger writes it down when it stops the CPU.
    .macro frame_of_host
    frame_of_interrupted
    .cfi_offset 31, -FRAME + FRAME_HOST_SP
    .endm

    .macro enter_from_host
    frame_of_host
    sub     sp, sp, #FRAME
    stp     x0, x1, [sp]
    save_registers
    // A frame record that ends the chain for whoever walks it by x29.
    mov     x29, xzr
    mov     x30, xzr
    .endm

    .macro vector_table name, host_sync_entry
    .balign 2048
    .global \name
\name:
    // From EL2 on SP_EL0, which hyp does not use: synchronous, IRQ, FIQ, SError.
    unexpected_from 0
    unexpected_from 1
    unexpected_from 2
    unexpected_from 3
    // From EL2 on SP_EL2.
    .balign 128
    b       own_sync_entry
    unexpected_from 5
    .if {CHANNEL}
    .balign 128
    b       own_fiq_entry
    .else
    unexpected_from 6
    .endif
    unexpected_from 7
    // From the host.
    .balign 128
    b       \host_sync_entry
    unexpected_from 9
    .if {CHANNEL}
    .balign 128
    b       host_fiq_entry
    .else
    unexpected_from 10
    .endif
    unexpected_from 11
    // From AArch32, which the host cannot use.
    unexpected_from 12
    unexpected_from 13
    unexpected_from 14
    unexpected_from 15
    .balign 128
    .endm

    .section .text.unbroken, "ax"
    vector_table el2_vectors, host_sync_entry

    .type host_sync_entry, %function
host_sync_entry:
    .cfi_startproc
    enter_from_host
    mov     x0, sp
    bl      host_sync
    return_to_interrupted
    .cfi_endproc
    .size host_sync_entry, . - host_sync_entry

    .if {CHANNEL}
    vector_table attached_vectors, attached_host_sync_entry

// As host_sync_entry, but that debug exceptions and FIQ may come while hyp works. They would overwrite the registers
// that say why the host trapped, so those are kept.
    .type attached_host_sync_entry, %function
attached_host_sync_entry:
    .cfi_startproc
    enter_from_host
    mrs     x2, esr_el2
    mrs     x3, far_el2
    stp     x2, x3, [sp, #FRAME_ESR]
    // Debug exceptions are those whose ESR_EL2.EC is 0x30 or above.
    ubfx    x3, x2, #30, #2
    cmp     x3, #3
    b.ne    1f
    mov     x0, sp
    bl      debugger_host_exception
    cbnz    x0, 2f
1:  // A step over an instruction of the host's does not go through hyp: MDSCR_EL1.SS is off meanwhile.
    mrs     x3, hpfar_el2
    mrs     x4, mdscr_el1
    and     x5, x4, #1
    stp     x3, x5, [sp, #FRAME_HPFAR]
    bic     x4, x4, #1
    msr     mdscr_el1, x4
    mov     x3, #1
    str     x3, [sp, #FRAME_SAVED]
    isb
    mov     x0, sp
    b       attached_host_sync
attached_host_sync_exit:
    str     xzr, [sp, #FRAME_SAVED]
    // A step that was asked for inside EL2 goes on in the host.
    mrs     x3, mdscr_el1
    ldr     x2, [sp, #FRAME_STEP]
    orr     x3, x3, x2
    msr     mdscr_el1, x3
2:  return_to_interrupted
    .cfi_endproc
    .size attached_host_sync_entry, . - attached_host_sync_entry

// The part of it that may have breakpoints: who finishes `host_sync` has one set where that returns to.
    .section .text, "ax"
    .type attached_host_sync, %function
attached_host_sync:
    .cfi_startproc
    frame_of_host
    msr     daifclr, #(8 | 1)
    bl      host_sync
    msr     daifset, #0xf
    b       attached_host_sync_exit
    .cfi_endproc
    .size attached_host_sync, . - attached_host_sync

    .section .text.unbroken, "ax"
    .type host_fiq_entry, %function
host_fiq_entry:
    .cfi_startproc
    enter_from_host
    mov     x0, sp
    bl      debugger_fiq
    return_to_interrupted
    .cfi_endproc
    .size host_fiq_entry, . - host_fiq_entry

    .type own_fiq_entry, %function
own_fiq_entry:
    .cfi_startproc
    frame_of_interrupted
    sub     sp, sp, #FRAME
    stp     x0, x1, [sp]
    save_registers
    mov     x0, sp
    bl      debugger_fiq
    return_to_interrupted
    .cfi_endproc
    .size own_fiq_entry, . - own_fiq_entry

// extern "C" fn switch_context(save: *mut u64, next: *const u64): goes on where the stack whose pointer is in `next`
// called this. The pointer of the stack this is called on is left in `save`.
    .global switch_context
    .type switch_context, %function
switch_context:
    stp     x29, x30, [sp, #-96]!
    stp     x27, x28, [sp, #16]
    stp     x25, x26, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x21, x22, [sp, #64]
    stp     x19, x20, [sp, #80]
    mov     x2, sp
    str     x2, [x0]
    ldr     x2, [x1]
    mov     sp, x2
    ldp     x27, x28, [sp, #16]
    ldp     x25, x26, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x21, x22, [sp, #64]
    ldp     x19, x20, [sp, #80]
    ldp     x29, x30, [sp], #96
    ret
    .size switch_context, . - switch_context
    .endif

// hyp itself faulted. If that was because its stack is used up, pushing a frame would fault again, for ever:
// stacks and their guards alternate, so one bit of SP tells which of the two it points to. x0 and SP are
// recovered from their sums, because there is no register to spare.
    .type own_sync_entry, %function
own_sync_entry:
    .cfi_startproc
    frame_of_interrupted
    sub     sp, sp, #FRAME
    add     sp, sp, x0
    sub     x0, sp, x0
    // At the fixed offset there are no guards: it is the stack of the start, of a report, or the debugger's.
    tbnz    x0, #{OFFSET_BIT}, 3f
    tbz     x0, #{STACK_BIT}, 1f
3:  sub     x0, sp, x0
    sub     sp, sp, x0
    stp     x0, x1, [sp]
    .if {CHANNEL}
    save_registers
    mov     x0, sp
    bl      debugger_own_exception
    cbz     x0, 2f
    return_to_interrupted
2:  mov     x1, #4
    b       unexpected_saved
    .else
    mov     x1, #4
    b       unexpected
    .endif
1:  // The report gets a stack of its own. TPIDR_EL0 is the host's, but the host will not run again.
    sub     x0, sp, x0
    msr     tpidr_el0, x0
    ldr     x0, =OVERFLOW_STACK + {OVERFLOW_STACK_SIZE} - FRAME
    mov     sp, x0
    mrs     x0, tpidr_el0
    stp     x0, x1, [sp]
    mov     x1, #16
    b       unexpected
    .cfi_endproc
    .size own_sync_entry, . - own_sync_entry

    .type unexpected, %function
unexpected:
    .cfi_startproc
    frame_of_interrupted
    save_registers
unexpected_saved:
    mov     x0, sp
    bl      unexpected_exception
    // Never reached; the address after the call must still be this function's, for who unwinds.
    brk     #0
    .cfi_endproc
    .size unexpected, . - unexpected

    .ltorg
