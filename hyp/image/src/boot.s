// Entry of every CPU at EL2, and the only code that runs with the MMU off or at VA = PA.
//
// QEMU enters CPU 0 at _start with the MMU off; PSCI enters the others at secondary_entry.

// MAIR_EL2: attribute 0 Normal write-back (0xff), attribute 1 Device-nGnRE (0x04).
.equ MAIR, 0x04ff
// TCR_EL2: RES1 31 and 23, SH0 3, ORGN0 1, IRGN0 1, T0SZ 25 (39 bits); PS is added.
.equ TCR, (1 << 31 | 1 << 23 | 3 << 12 | 1 << 10 | 1 << 8 | 25)
// SCTLR_EL2: RES1 bits, M (0), C (2), I (12).
.equ SCTLR, (0x30c50830 | 1 << 0 | 1 << 2 | 1 << 12)
// HCR_EL2.RW: EL1 is AArch64; E2H is 0.
.equ HCR_RW, 1 << 31

    .section .idmap, "ax"

    .global _start
    .type _start, %function
_start:
    msr     daifset, #0xf
    mrs     x1, CurrentEL
    cmp     x1, #(2 << 2)
    b.ne    park_here
    mov     x1, #HCR_RW
    msr     hcr_el2, x1
    // PC-relative, so physical here. .stacks follows .bss.
    adrp    x1, __bss_start
    adrp    x2, __stacks_end
1:  stp     xzr, xzr, [x1], #16
    cmp     x1, x2
    b.lo    1b
    adrp    x0, BOOT_TABLE
    ldr     x30, =primary_high
    b       install_tables
park_here:
    wfe
    b       park_here
    .size _start, . - _start

// x0: the root of EL2's tables, and below its alignment this CPU's number. No memory need be read, which
// the other CPUs' caches might not have written back.
    .global secondary_entry
    .type secondary_entry, %function
secondary_entry:
    msr     daifset, #0xf
    mov     x1, #HCR_RW
    msr     hcr_el2, x1
    and     x1, x0, #0xfff
    msr     tpidr_el2, x1
    and     x0, x0, #~0xfff
    ldr     x30, =secondary_high
    b       install_tables
    .size secondary_entry, . - secondary_entry

// extern "C" fn install_tables(root: u64): EL2 translates by the tables at `root`, and by nothing else.
// Old and new tables must not be used at once, so the MMU is off in between: this runs at VA = PA and
// touches no memory. Returns to x30, an address that only the new tables need to translate.
    .global install_tables
    .type install_tables, %function
install_tables:
    adr     x1, 1f
    and     x1, x1, #0x3fffffffff
    br      x1
1:  dsb     sy
    mrs     x1, sctlr_el2
    bic     x1, x1, #1
    msr     sctlr_el2, x1
    isb
    ldr     x1, =MAIR
    msr     mair_el2, x1
    // PS is ID_AA64MMFR0_EL1.PARange, of which 48 bits (5) are the most this format has.
    mrs     x1, id_aa64mmfr0_el1
    and     x1, x1, #0xf
    mov     x2, #5
    cmp     x1, x2
    csel    x1, x1, x2, lo
    ldr     x2, =TCR
    orr     x1, x2, x1, lsl #16
    msr     tcr_el2, x1
    msr     ttbr0_el2, x0
    tlbi    alle2
    ic      iallu
    dsb     nsh
    isb
    ldr     x1, =SCTLR
    msr     sctlr_el2, x1
    isb
    ret
    .size install_tables, . - install_tables

    .ltorg

    // No breakpoint may be here: its exception would overwrite what is returned to.
    .section .text.unbroken, "ax"

// Until its own tables are on, CPU 0 uses its stack at the fixed offset.
    .type primary_high, %function
primary_high:
    msr     tpidr_el2, xzr
    ldr     x1, =__stacks_start
    add     x1, x1, #{STACK_SIZE}
    sub     sp, x1, #{FRAME_SIZE}
    ldr     x1, =el2_vectors
    msr     vbar_el2, x1
    isb
    mov     x29, xzr
    mov     x30, xzr
    b       hyp_main
    .size primary_high, . - primary_high

    .type secondary_high, %function
secondary_high:
    mrs     x0, tpidr_el2
    bl      stack_top
    // Above is the place of the host's frame, in which the debugger looks and writes: there is none yet.
    sub     sp, x1, #{FRAME_SIZE}
    stp     xzr, xzr, [sp, #{FRAME_ELR}]
    str     xzr, [sp, #{FRAME_SAVED}]
    ldr     x1, =el2_vectors
    msr     vbar_el2, x1
    isb
    mov     x29, xzr
    mov     x30, xzr
    b       secondary_main
    .size secondary_high, . - secondary_high

// x1: the top of the stack of CPU x0, as layout.rs places it: an unmapped guard, then the stack.
    .type stack_top, %function
stack_top:
    ldr     x1, ={STACKS_VA}
    add     x2, x0, #1
    add     x1, x1, x2, lsl #{STACK_SHIFT}
    ret
    .size stack_top, . - stack_top

// SPSR_EL2: D, A, I and F masked, EL1 on SP_EL1.
.equ SPSR_EL1H, 0x3c5

// extern "C" fn enter_host(cpu: u64, entry: u64, argument: u64) -> !
// The host starts at EL1 with its argument in x0 and nothing of EL2's in the other registers.
    .global enter_host
    .type enter_host, %function
enter_host:
    msr     elr_el2, x1
    mov     x1, #SPSR_EL1H
    msr     spsr_el2, x1
    mov     x3, x2
    bl      stack_top
    mov     sp, x1
    mov     x0, x3
    .irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
    mov     x\n, xzr
    .endr
    eret
    .size enter_host, . - enter_host

    .ltorg
