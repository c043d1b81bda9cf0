/* What this processor can do and its kernel saves, asked by cpuid. `__builtin_cpu_supports` and `target_clones` rest
 * on the compiler's own runtime library, and that of Zig, which builds the wheels, says no to everything. */
#ifndef VECSTORE_PROCESSOR_H
#define VECSTORE_PROCESSOR_H

#if defined(__x86_64__) && defined(__GNUC__)
#define VS_HAVE_X86 1
#include <cpuid.h>

/* From the plainest to the best: each can do what those before it can. */
enum { VS_X86_BASELINE, VS_X86_AVX2, VS_X86_AVX512 };

/* Takes microseconds on a virtual machine: for when a module is loaded, not for a query. */
static inline int vs_x86_level(void) {
    const unsigned base = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C | bit_POPCNT;
    const unsigned avx2 = bit_AVX2 | bit_BMI;
    const unsigned avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
    const unsigned ymm = 0x06, zmm = 0xe6; /* registers that the kernel saves */
    unsigned a, b, c, d, saved, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & base) != base)
        return VS_X86_BASELINE;
    __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (b & avx2) != avx2 || (saved & ymm) != ymm)
        return VS_X86_BASELINE;
    return (b & avx512) == avx512 && (saved & zmm) == zmm ? VS_X86_AVX512 : VS_X86_AVX2;
}
#endif

#endif
