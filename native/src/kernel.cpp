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

// Where the lanes of a vector lie: in one row of tiles, or as many in each of PARTS rows.
template <int PARTS>
struct Lanes {
    const float* at[PARTS];
    Vec load(ptrdiff_t offset) const { return load_parts(at, offset); }
};
template <>
struct Lanes<1> {
    const float* at[1];
    Vec load(ptrdiff_t offset) const { return ::DSCLORA_ISA::load(at[0] + offset); }
};

// Input transform B^T d B of one channel. Its 6 x 6 pixels are at top[row] + column[column]; results go to out[position *
// step].
template <bool LOWER>
inline __attribute__((always_inline)) void transform_input_half(const float* const top[6], const ptrdiff_t column[6],
                                                                float* out, ptrdiff_t step) {
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

// Of the tiles that are `offset` floats into their rows.
template <int PARTS>
inline __attribute__((always_inline)) void transform_input(const TileRow* tile_rows, int source, ptrdiff_t offset,
                                                           ptrdiff_t pitch, float* out, ptrdiff_t step) {
    const ptrdiff_t column[6] = {3 * pitch - 1, 0, pitch, 2 * pitch, 3 * pitch, 1};
    const float* top[6];
    if (PARTS == 1) {
        for (int i = 0; i < 6; ++i) top[i] = tile_rows[0].rows[source][i] + offset;
        transform_input_half<false>(top, column, out, step);
        transform_input_half<true>(top, column, out, step);
        return;
    }
    constexpr ptrdiff_t side_by_side[6] = {0, LANES, 2 * LANES, 3 * LANES, 4 * LANES, 5 * LANES};
    alignas(sizeof(Vec)) float gathered[36 * LANES];
    for (int i = 0; i < 6; ++i) {
        Lanes<PARTS> lanes;
        for (int n = 0; n < PARTS; ++n) lanes.at[n] = tile_rows[n].rows[source][i] + offset;
        top[i] = gathered + 6 * i * LANES;
#pragma GCC unroll 6
        for (int j = 0; j < 6; ++j) store(gathered + (6 * i + j) * LANES, lanes.load(column[j]));
    }
    transform_input_half<false>(top, side_by_side, out, step);
    transform_input_half<true>(top, side_by_side, out, step);
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

// What the tiles of a vector, or of a part of one, have become: LR pixel (x, row) is the first.
struct Sums {
    const float* y;  // [row of the tile][phase][channel][lane]
    ptrdiff_t phase, channel;
    int row, x, pixels;
};

template <typename T, int SCALE>
void shuffle(const Call& call, const Sums& sums, float peak) {
    const Picture& p = *call.picture;
    const int left = call.right - sums.x;
    if (left <= 0) return;
    for (int a = 0; a < 4; ++a) {
        const int row = sums.row + a;
        if (row < call.top || row >= call.bottom) continue;
        for (int i = 0; i < SCALE; ++i) {
            char* out =
                static_cast<char*>(p.data) + ((row - call.top) * SCALE + i) * p.row + (sums.x - call.left) * SCALE * p.column;
            shuffle_row<T, SCALE>(sums.y + 4 * a * sums.phase, sums.phase, sums.channel, i, peak, out,
                                  left < sums.pixels ? left : sums.pixels);
        }
    }
}

template <int SCALE>
void shuffle(const Call& call, const Sums& sums) {
    switch (call.picture->kind) {
        case Pixel::u8:
            return shuffle<uint8_t, SCALE>(call, sums, 255.0f);
        case Pixel::u16:
            return shuffle<uint16_t, SCALE>(call, sums, 65535.0f);
        case Pixel::f32:
            return shuffle<float, SCALE>(call, sums, 1.0f);
    }
}

void shuffle(const Call& call, const Sums& sums) {
    switch (call.scale) {
        case 1:
            return shuffle<1>(call, sums);
        case 2:
            return shuffle<2>(call, sums);
        case 3:
            return shuffle<3>(call, sums);
        case 4:
            return shuffle<4>(call, sums);
    }
}

// The shares of two more pictures by the 1x1 conv: to y[(4 * row + phase) * y_step]. Vectors whose lanes lie apart are put
// together in `gathered` first.
template <int J, int PARTS>
void multiply_points(const Call& call, const TileRow* tile_rows, int tile, float* gathered, float* y, ptrdiff_t y_step) {
    Conv part = call.pointwise;
    part.inputs /= 2;
    for (int a = 0; a < 4; ++a) {
        bool needed = false;
        for (int n = 0; n < PARTS; ++n) needed |= tile_rows[n].out[a] != nullptr;
        if (!needed) continue;
        for (int b = 0; b < 4; ++b)
            for (int source = 0; source < 2; ++source) {
                const float* inputs = tile_rows[0].points[source][a] + b * call.pitch + tile;
                ptrdiff_t step = 4 * call.pitch;
                if (PARTS > 1) {
                    Lanes<PARTS> lanes;
                    for (int n = 0; n < PARTS; ++n) lanes.at[n] = tile_rows[n].points[source][a] + b * call.pitch + tile;
                    for (int c = 0; c < part.inputs; ++c) store(gathered + c * LANES, lanes.load(c * step));
                    inputs = gathered;
                    step = LANES;
                }
                multiply_blocks<J>(part, part.weights + source * part.inputs * part.outputs, inputs, step,
                                   y + (4 * a + b) * y_step, part.inputs, source);
            }
    }
}

// J vectors of tiles, from the input's transform to the finished pixels. A vector's lanes are tiles from `tile` on in one row
// of tiles, or as many in each of PARTS rows.
template <Finish F, int J, int PARTS>
void run(const Call& call, const TileRow* tile_rows, int tile) {
    static_assert(J == 1 || PARTS == 1, "vectors whose lanes lie apart come one at a time");
    constexpr int WIDTH = LANES / PARTS;
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
                transform_input<PARTS>(tile_rows, source, 4 * c * call.pitch + tile + j * LANES, call.pitch, to, v_step);
            }

    const float* weights = conv.weights;
    for (int p = 0; p < POSITIONS; ++p)
        weights = multiply_blocks<J>(conv, weights, v + p * v_step, J * LANES, m + p * m_step, conv.inputs, false);

    if (F == Finish::join) multiply_points<J, PARTS>(call, tile_rows, tile, v, y, m_step);

    for (int j = 0; j < J; ++j) {
        Int inside[4];
        for (int b = 0; b < 4; ++b) {
            Lanes<PARTS> mask;
            for (const float*& at : mask.at)
                at = reinterpret_cast<const float*>(call.inside + b * call.inside_pitch + tile + j * LANES);
            inside[b] = (Int)mask.load(0);
        }
        for (int n = 0; n < conv.outputs; ++n) {
            const ptrdiff_t at = 4 * n * call.pitch + tile + j * LANES;
            float* const here = y + (n * J + j) * LANES;
            transform_output(
                m + (n * J + j) * LANES, m_step, conv.bias[n], [&](int a, Vec4 sums) __attribute__((always_inline)) {
                    float* out[PARTS];
                    Lanes<PARTS> residual;
                    bool needed = F == Finish::pixels;
                    for (int part = 0; part < PARTS; ++part) {
                        out[part] = tile_rows[part].out[a];
                        residual.at[part] = tile_rows[part].residual[a];
                        needed |= out[part] != nullptr;
                    }
                    if (!needed) return;
#pragma GCC unroll 4
                    for (int b = 0; b < 4; ++b) {
                        Vec x = sums.at[b];
                        if (F == Finish::silu) x = x * sigmoid(x);
                        if (F == Finish::attend) x = (x + residual.load(at + b * call.pitch)) * (sigmoid(x) - 0.5f);
                        if (F == Finish::join) x += load(here + (4 * a + b) * m_step);
                        if (F == Finish::pixels) {
                            store(here + (4 * a + b) * m_step, x);
                            continue;
                        }
                        x = (Vec)((Int)x & inside[b]);
                        if (PARTS == 1) store(out[0] + at + b * call.pitch, x);
                        if (PARTS == 1) continue;
                        float lanes[LANES];
                        store(lanes, x);
                        for (int part = 0; part < PARTS; ++part)
                            if (out[part])
                                __builtin_memcpy(out[part] + at + b * call.pitch, lanes + part * WIDTH, WIDTH * sizeof(float));
                    }
                });
        }
        for (int part = 0; F == Finish::pixels && part < PARTS; ++part)
            shuffle(call,
                    {y + j * LANES + part * WIDTH, m_step, J * LANES, tile_rows[part].y, 4 * (tile + j * LANES), 4 * WIDTH});
    }
}

// Tiles [tile, last) of one row.
template <Finish F>
void run_row(const Call& call, const TileRow* row, int tile, int last) {
    for (; tile + LANES < last; tile += 2 * LANES) run<F, 2, 1>(call, row, tile);
    if (tile < last) run<F, 1, 1>(call, row, tile);
}

// PARTS rows: the tiles that whole vectors leave of each go into one together.
template <Finish F, int PARTS>
void run_together(const Call& call, const TileRow* rows) {
    const int last = call.last - (call.last - call.first) % LANES;
    for (int n = 0; n < PARTS; ++n) run_row<F>(call, rows + n, call.first, last);
    run<F, 1, PARTS>(call, rows, last);
}

template <Finish F>
void run_all(const Call& call) {
    const int rest = (call.last - call.first) % LANES;
    int n = 0;
    if (rest && rest <= LANES / MOST_PARTS)
        for (; n + MOST_PARTS <= call.count; n += MOST_PARTS) run_together<F, MOST_PARTS>(call, call.tile_rows + n);
    if (rest && rest <= LANES / 2)
        for (; n + 2 <= call.count; n += 2) run_together<F, 2>(call, call.tile_rows + n);
    for (; n < call.count; ++n) run_row<F>(call, call.tile_rows + n, call.first, call.last);
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
