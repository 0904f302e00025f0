// Vectors of floats in the compiler's own extension (GCC and Clang), as wide as the instruction set that a file is compiled
// for. What the extension lacks is one intrinsic per instruction set; everything else is written once.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace DSCLORA_ISA {

#if defined(__AVX512F__)
constexpr int LANES = 16;
constexpr int BLOCK = 14;  // outputs of a register block: 2 * 14 sums, 2 inputs and a weight fit into 32 registers
#elif defined(__AVX2__)
constexpr int LANES = 8;
constexpr int BLOCK = 6;  // 16 registers
#elif defined(__aarch64__)
constexpr int LANES = 4;
constexpr int BLOCK = 12;
#else
#error "no instruction set that this is written for"
#endif

typedef float Vec __attribute__((vector_size(LANES * 4)));
typedef int32_t Int __attribute__((vector_size(LANES * 4)));
typedef float Unaligned __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint32_t Bits __attribute__((vector_size(LANES * 4)));

static inline Vec load(const float* p) { return *reinterpret_cast<const Unaligned*>(p); }
static inline void store(float* p, Vec v) { *reinterpret_cast<Unaligned*>(p) = v; }
static inline Vec all(float x) { return x - Vec{}; }  // unlike Vec{} + x, which makes a 0 of -0, no arithmetic

// A vector whose halves, or quarters, lie apart.
static inline Vec load_parts(const float* const (&at)[2], ptrdiff_t offset) {
#if defined(__AVX512F__)
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(at[0] + offset)), _mm256_loadu_ps(at[1] + offset), 1);
#elif defined(__AVX2__)
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(at[0] + offset)), _mm_loadu_ps(at[1] + offset), 1);
#else
    return vcombine_f32(vld1_f32(at[0] + offset), vld1_f32(at[1] + offset));
#endif
}
#if defined(__AVX512F__)
constexpr int MOST_PARTS = 4;
static inline Vec load_parts(const float* const (&at)[4], ptrdiff_t offset) {
    Vec v = _mm512_castps128_ps512(_mm_loadu_ps(at[0] + offset));
    v = _mm512_insertf32x4(v, _mm_loadu_ps(at[1] + offset), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps(at[2] + offset), 2);
    return _mm512_insertf32x4(v, _mm_loadu_ps(at[3] + offset), 3);
}
#else
constexpr int MOST_PARTS = 2;
#endif

// The larger and the smaller; where `a` is NaN, `b`.
static inline Vec larger(Vec a, Vec b) {
#if defined(__AVX512F__)
    return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
    return _mm256_max_ps(a, b);
#else
    return vmaxnmq_f32(a, b);
#endif
}
static inline Vec smaller(Vec a, Vec b) {
#if defined(__AVX512F__)
    return _mm512_min_ps(a, b);
#elif defined(__AVX2__)
    return _mm256_min_ps(a, b);
#else
    return vminnmq_f32(a, b);
#endif
}

// 1 / x to one unit in the last place or so, for 1 <= x < 2^126.
static inline Vec reciprocal(Vec x) {
#if defined(__AVX512F__)
    const Vec r = _mm512_rcp14_ps(x);
    return r * (2.0f - x * r);
#else
    return 1.0f / x;
#endif
}

// 2^n * p, and x rounded to an integer n, for |x| < 2^22.
static inline Vec scale_by_power(Vec p, Vec n) {
#if defined(__AVX512F__)
    return _mm512_scalef_ps(p, n);
#else
    return (Vec)((Bits)p + ((Bits) __builtin_convertvector(n, Int) << 23));
#endif
}
static inline Vec round_to_integer(Vec x) {
#if defined(__AVX512F__)
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    const float shift = 12582912.0f;  // 1.5 * 2^23: what is added to it loses its fraction
    return (x + shift) - shift;
#endif
}

// 1 / (1 + exp(-x)): exp by a power of two and a polynomial on [-1/2, 1/2] of relative error 1e-7. NaN becomes about 0.
static inline Vec sigmoid(Vec x) {
    const float log2e = 1.44269504f;
    x = smaller(larger(x, all(-86.0f)), all(86.0f));
    const Vec t = x * -log2e;
    const Vec n = round_to_integer(t);
    const Vec f = t - n;
    Vec p = f * 1.32647e-3f + 9.67152e-3f;
    p = p * f + 5.550734e-2f;
    p = p * f + 2.4022242e-1f;
    p = p * f + 6.9314698e-1f;
    p = p * f + 1.0f;
    return reciprocal(scale_by_power(p, n) + 1.0f);
}

}  // namespace DSCLORA_ISA
