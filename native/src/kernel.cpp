// The arithmetic, compiled once per instruction set: Winograd's F(4x4, 3x3) (Lavin and Gray, arXiv 1509.09308) with the
// tiles of a row as lanes, and what follows a conv in SPAN fused into its output transform.
//
// Everything here is in the instruction set's own namespace and nothing of the standard library is used: the linker would
// otherwise be free to give another instruction set's copy of an inline function to a processor that lacks it.
#include "kernel.hpp"

#include "simd.hpp"

namespace DSCLORA_ISA {
namespace {

using namespace dsclora;

constexpr int POSITIONS = 36;
constexpr int WIDEST = 2;  // vectors of tiles that are worked on together

struct Vec4 {
    Vec at[4];
};

// Input transform B^T d B of one channel. `top` points to tile `t` of the first phase in each of six rows; results go to
// out[position * step].
template <bool LOWER>
inline void transform_input_half(const float* const top[6], ptrdiff_t pitch, float* out, ptrdiff_t step) {
    const ptrdiff_t column[6] = {3 * pitch - 1, 0, pitch, 2 * pitch, 3 * pitch, 1};
    Vec w[3][6];
#pragma GCC unroll 6
    for (int j = 0; j < 6; ++j) {
        const Vec d1 = load(top[1] + column[j]), d2 = load(top[2] + column[j]), d3 = load(top[3] + column[j]),
                  d4 = load(top[4] + column[j]);
        if (!LOWER) {
            const Vec d0 = load(top[0] + column[j]);
            const Vec a = d4 - 4.0f * d2, b = d3 - 4.0f * d1;
            w[0][j] = 4.0f * d0 + (d4 - 5.0f * d2);
            w[1][j] = a + b;
            w[2][j] = a - b;
        } else {
            const Vec d5 = load(top[5] + column[j]);
            const Vec c = d4 - d2, e = d3 - d1;
            w[0][j] = c + 2.0f * e;
            w[1][j] = c - 2.0f * e;
            w[2][j] = 4.0f * d1 + (d5 - 5.0f * d3);
        }
    }
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
        float* o = out + (6 * (i + 3 * LOWER)) * step;
        const Vec a = w[i][4] - 4.0f * w[i][2], b = w[i][3] - 4.0f * w[i][1];
        const Vec c = w[i][4] - w[i][2], e = w[i][3] - w[i][1];
        store(o, 4.0f * w[i][0] + (w[i][4] - 5.0f * w[i][2]));
        store(o + step, a + b);
        store(o + 2 * step, a - b);
        store(o + 3 * step, c + 2.0f * e);
        store(o + 4 * step, c - 2.0f * e);
        store(o + 5 * step, 4.0f * w[i][1] + (w[i][5] - 5.0f * w[i][3]));
    }
}

// Output transform A^T m A of one channel: sums at sums[position * step]; the pixels of row `a` go to row(a, pixels[4]).
template <typename Row>
inline __attribute__((always_inline)) void transform_output(const float* sums, ptrdiff_t step, float bias, Row row) {
    Vec w[4][6];
#pragma GCC unroll 6
    for (int j = 0; j < 6; ++j) {
        Vec m[6];
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i) m[i] = load(sums + (6 * i + j) * step);
        if (j == 1) m[1] += bias;  // this sum alone counts once in every pixel
        const Vec s = m[1] + m[2], d = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
        w[0][j] = m[0] + s + s2;
        w[1][j] = d + 2.0f * d2;
        w[2][j] = s + 4.0f * s2;
        w[3][j] = d + 8.0f * d2 + m[5];
    }
#pragma GCC unroll 4
    for (int a = 0; a < 4; ++a) {
        const Vec s = w[a][1] + w[a][2], d = w[a][1] - w[a][2], s2 = w[a][3] + w[a][4], d2 = w[a][3] - w[a][4];
        row(a, Vec4{w[a][0] + s + s2, d + 2.0f * d2, s + 4.0f * s2, d + 8.0f * d2 + w[a][5]});
    }
}

// N outputs of J vectors: sums[n * J + j] (+)= sum over k of weights[k][n] * inputs[k * step + j].
template <int N, int J>
void multiply(const float* weights, const float* inputs, ptrdiff_t step, float* sums, int depth, bool add) {
    Vec s[N][J];
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n)
#pragma GCC unroll 2
        for (int j = 0; j < J; ++j) s[n][j] = add ? load(sums + (n * J + j) * LANES) : Vec{};
    for (int k = 0; k < depth; ++k, inputs += step, weights += N) {
        Vec v[J];
#pragma GCC unroll 2
        for (int j = 0; j < J; ++j) v[j] = load(inputs + j * LANES);
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) {
            const Vec w = all(weights[n]);
#pragma GCC unroll 2
            for (int j = 0; j < J; ++j) s[n][j] += w * v[j];
        }
    }
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n)
#pragma GCC unroll 2
        for (int j = 0; j < J; ++j) store(sums + (n * J + j) * LANES, s[n][j]);
}

using Multiply = void (*)(const float*, const float*, ptrdiff_t, float*, int, bool);

template <int J, int N>
struct Table {
    static Multiply of(int n) { return n == N ? multiply<N, J> : Table<J, N - 1>::of(n); }
};
template <int J>
struct Table<J, 0> {
    static Multiply of(int) { return nullptr; }
};

// All outputs of a conv at one position: the blocks one after the other. Returns where the next position's weights are.
template <int J>
const float* multiply_blocks(const Conv& conv, const float* weights, const float* inputs, ptrdiff_t step, float* sums,
                             int depth, bool add) {
    const int blocks = (conv.outputs + BLOCK - 1) / BLOCK, small = conv.outputs / blocks, more = conv.outputs % blocks;
    const Multiply large_one = Table<J, BLOCK>::of(small + 1), small_one = Table<J, BLOCK>::of(small);
    for (int b = 0; b < blocks; ++b) {
        const int n = small + (b < more);
        (b < more ? large_one : small_one)(weights, inputs, step, sums, depth, add);
        weights += static_cast<ptrdiff_t>(conv.inputs) * n;
        sums += n * J * LANES;
    }
    return weights;
}

// Pixels of one row of LR pixels, y[phase][channel], to one row of the picture. A tile makes 12 * scale samples of it, in the
// order pixel, sub-pixel, colour; as many as fill 32 bits are put together in the lanes, and then stored tile by tile.
template <typename T, int SCALE>
void shuffle_row(const float* y, ptrdiff_t phase, ptrdiff_t channel, int sub_row, float peak, char* out, int pixels) {
    constexpr int TOGETHER = 4 / sizeof(T), BITS = 8 * sizeof(T) % 32, samples = 4 * SCALE * 3;
    char part[LANES * samples * sizeof(T)];  // of the last tiles of a picture: not to write beyond it
    char* const to = pixels == 4 * LANES ? out : part;
#pragma GCC unroll 12
    for (int first = 0; first < samples; first += TOGETHER) {
        Bits word = {};
        for (int n = TOGETHER - 1; n >= 0; --n) {
            const int x = (first + n) / 3 / SCALE, sub_column = (first + n) / 3 % SCALE, colour = (first + n) % 3;
            const Vec v = load(y + x * phase + (colour * SCALE * SCALE + sub_row * SCALE + sub_column) * channel);
            if (sizeof(T) == 4)
                word = (Bits)smaller(larger(v, Vec{}), all(1.0f));
            else
                word = word << BITS | (Bits) __builtin_convertvector(smaller(larger(v * peak, Vec{}), all(peak)) + 0.5f, Int);
        }
        for (int l = 0; l < LANES; ++l) {
            const uint32_t lane = word[l];
            __builtin_memcpy(to + (l * samples + first) * sizeof(T), &lane, 4);
        }
    }
    if (to == part) __builtin_memcpy(out, part, static_cast<size_t>(pixels) * SCALE * 3 * sizeof(T));
}

template <typename T, int SCALE>
void shuffle(const Call& call, const float* y, ptrdiff_t phase, ptrdiff_t channel, int tile, float peak) {
    const Picture& p = *call.picture;
    const int x = 4 * tile, left = call.width - x;
    if (left <= 0) return;
    for (int a = 0; a < 4; ++a) {
        const int row = call.y + a;
        if (row < 0 || row * SCALE >= p.height) continue;
        for (int i = 0; i < SCALE; ++i) {
            char* out = static_cast<char*>(p.data) + (row * SCALE + i) * p.row + x * SCALE * p.column;
            shuffle_row<T, SCALE>(y + 4 * a * phase, phase, channel, i, peak, out, left < 4 * LANES ? left : 4 * LANES);
        }
    }
}

template <int SCALE>
void shuffle(const Call& call, const float* y, ptrdiff_t phase, ptrdiff_t channel, int tile) {
    switch (call.picture->kind) {
        case Pixel::u8:
            return shuffle<uint8_t, SCALE>(call, y, phase, channel, tile, 255.0f);
        case Pixel::u16:
            return shuffle<uint16_t, SCALE>(call, y, phase, channel, tile, 65535.0f);
        case Pixel::f32:
            return shuffle<float, SCALE>(call, y, phase, channel, tile, 1.0f);
    }
}

void shuffle(const Call& call, const float* y, ptrdiff_t phase, ptrdiff_t channel, int tile) {
    switch (call.scale) {
        case 1:
            return shuffle<1>(call, y, phase, channel, tile);
        case 2:
            return shuffle<2>(call, y, phase, channel, tile);
        case 3:
            return shuffle<3>(call, y, phase, channel, tile);
        case 4:
            return shuffle<4>(call, y, phase, channel, tile);
    }
}

// J vectors of tiles, from the input's transform to the finished pixels.
template <Finish F, int J>
void run(const Call& call, int tile) {
    const Conv& conv = call.conv;
    float* const v = call.scratch;
    const ptrdiff_t v_step = static_cast<ptrdiff_t>(conv.inputs) * J * LANES;
    float* const m = v + POSITIONS * v_step;
    const ptrdiff_t m_step = static_cast<ptrdiff_t>(conv.outputs) * J * LANES;
    float* const y = m + POSITIONS * m_step;  // (4 rows, 4 phases, outputs, J, LANES)

    float* to = v;
    for (int source = 0; source < 2; ++source)
        for (int c = 0; c < call.channels[source]; ++c)
            for (int j = 0; j < J; ++j, to += LANES) {
                const float* top[6];
                for (int i = 0; i < 6; ++i) top[i] = call.rows[source][i] + 4 * c * call.pitch + tile + j * LANES;
                transform_input_half<false>(top, call.pitch, to, v_step);
                transform_input_half<true>(top, call.pitch, to, v_step);
            }

    const float* weights = conv.weights;
    for (int p = 0; p < POSITIONS; ++p)
        weights = multiply_blocks<J>(conv, weights, v + p * v_step, J * LANES, m + p * m_step, conv.inputs, false);

    if (F == Finish::join)
        for (int a = 0; a < 4; ++a)
            for (int b = 0; b < 4 && call.out[a]; ++b) {
                Conv part = call.pointwise;
                part.inputs /= 2;
                for (int source = 0; source < 2; ++source)
                    multiply_blocks<J>(part, part.weights + source * part.inputs * part.outputs,
                                       call.points[source][a] + b * call.pitch + tile, 4 * call.pitch, y + (4 * a + b) * m_step,
                                       part.inputs, source);
            }

    for (int j = 0; j < J; ++j) {
        Int inside[4];
        for (int b = 0; b < 4; ++b) inside[b] = load_int(call.inside + b * call.inside_pitch + tile + j * LANES);
        for (int n = 0; n < conv.outputs; ++n) {
            const ptrdiff_t at = 4 * n * call.pitch + tile + j * LANES;
            float* const here = y + (n * J + j) * LANES;
            transform_output(m + (n * J + j) * LANES, m_step, conv.bias[n],
                             [&](int a, Vec4 made) __attribute__((always_inline)) {
                                 if (F != Finish::pixels && !call.out[a]) return;
#pragma GCC unroll 4
                                 for (int b = 0; b < 4; ++b) {
                                     Vec x = made.at[b];
                                     if (F == Finish::silu) x = x * sigmoid(x);
                                     if (F == Finish::attend)
                                         x = (x + load(call.residual[a] + at + b * call.pitch)) * (sigmoid(x) - 0.5f);
                                     if (F == Finish::join) x += load(here + (4 * a + b) * m_step);
                                     if (F == Finish::pixels)
                                         store(here + (4 * a + b) * m_step, x);
                                     else
                                         store(call.out[a] + at + b * call.pitch, (Vec)((Int)x & inside[b]));
                                 }
                             });
        }
        if (F == Finish::pixels) shuffle(call, y + j * LANES, m_step, J * LANES, tile + j * LANES);
    }
}

template <Finish F>
void run_all(const Call& call) {
    int tile = call.first;
    for (; tile + LANES < call.last; tile += 2 * LANES) run<F, 2>(call, tile);
    if (tile < call.last) run<F, 1>(call, tile);
}

void conv(const Call& call) {
    switch (call.finish) {
        case Finish::linear:
            return run_all<Finish::linear>(call);
        case Finish::silu:
            return run_all<Finish::silu>(call);
        case Finish::attend:
            return run_all<Finish::attend>(call);
        case Finish::join:
            return run_all<Finish::join>(call);
        case Finish::pixels:
            return run_all<Finish::pixels>(call);
    }
}

size_t scratch(int inputs, int outputs) {
    return static_cast<size_t>(WIDEST) * LANES * (POSITIONS * (inputs + outputs) + 16 * outputs);
}

bool runs_here() {
#if defined(__AVX512F__)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#elif defined(__AVX2__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return true;
#endif
}

}  // namespace
}  // namespace DSCLORA_ISA

namespace dsclora {
extern const Kernel DSCLORA_ISA = {DSCLORA_NAME, ::DSCLORA_ISA::BLOCK, ::DSCLORA_ISA::runs_here, ::DSCLORA_ISA::scratch,
                                   ::DSCLORA_ISA::conv};
}
