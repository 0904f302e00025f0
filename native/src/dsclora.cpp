// The plain C face: arguments checked, exceptions turned into codes.
#include "dsclora.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "network.hpp"

struct dsclora_span {
    dsclora::Network network;
};

namespace {

using namespace dsclora;

// Rows are counted in int, with room for the network's lag.
constexpr int64_t MOST_ROWS = int64_t{1} << 28, MOST_COLUMNS = int64_t{1} << 24;

void tell(char* error, size_t error_size, const char* text) {
    if (!error || !error_size) return;
    const size_t length = std::min(std::strlen(text), error_size - 1);
    std::memcpy(error, text, length);
    error[length] = '\0';
}

template <typename Work>
int guarded(char* error, size_t error_size, Work work) {
    try {
        work();
        return DSCLORA_OK;
    } catch (const std::bad_alloc&) {
        tell(error, error_size, "out of memory");
        return DSCLORA_OUT_OF_MEMORY;
    } catch (const std::exception& problem) {
        tell(error, error_size, problem.what());
        return DSCLORA_WRONG_ARGUMENT;
    }
}

void check(bool fine, const char* problem) {
    if (!fine) throw std::invalid_argument(problem);
}

ptrdiff_t sample_size(Pixel kind) { return kind == Pixel::u8 ? 1 : kind == Pixel::u16 ? 2 : 4; }

Picture checked(const dsclora_picture& from) {
    check(from.kind == DSCLORA_U8 || from.kind == DSCLORA_U16 || from.kind == DSCLORA_F32, "expected uint8, uint16 or float32");
    check(from.height >= 1 && from.width >= 1 && from.height <= MOST_ROWS && from.width <= MOST_COLUMNS,
          "a picture must have 1 to 2^28 rows and 1 to 2^24 columns");
    Picture picture;
    picture.data = from.data;
    picture.kind = from.kind == DSCLORA_U8 ? Pixel::u8 : from.kind == DSCLORA_U16 ? Pixel::u16 : Pixel::f32;
    picture.height = static_cast<int>(from.height), picture.width = static_cast<int>(from.width);
    picture.row = from.row, picture.column = from.column, picture.band = from.band;
    return picture;
}

const Kernel& kernel_named(const char* name) {
    for (const Kernel* kernel : kernels())
        if (!name || !*name || !std::strcmp(name, kernel->name)) return *kernel;
    throw std::invalid_argument(std::string("no kernel ") + (name ? name : "") + " for this processor");
}

}  // namespace

const char* dsclora_kernel(int n) {
    const char* name = nullptr;
    guarded(nullptr, 0, [&] {
        const std::vector<const Kernel*> usable = kernels();
        if (n >= 0 && size_t(n) < usable.size()) name = usable[n]->name;
    });
    return name;
}

dsclora_span* dsclora_create(const dsclora_tensor* tensors, int count, int scale, int channels, const float mean[3],
                             float range, const char* kernel, char* error, size_t error_size) {
    dsclora_span* span = nullptr;
    guarded(error, error_size, [&] {
        const Kernel& chosen = kernel_named(kernel);
        span = new dsclora_span{{chosen, fold(tensors, count, channels, scale), scale, mean, range}};
    });
    return span;
}

const char* dsclora_kernel_of(const dsclora_span* span) { return span->network.kernel.name; }

int dsclora_run(dsclora_span* span, const dsclora_picture* source, const dsclora_picture* target, int64_t top, int64_t left,
                int threads, char* error, size_t error_size) {
    return guarded(error, error_size, [&] {
        const Picture from = checked(*source), to = checked(*target);
        const int scale = span->network.scale;
        check(from.kind == to.kind, "the output must have the input's dtype");
        check(to.height % scale == 0 && to.width % scale == 0,
              "the output must be `scale` times as large as its part of the input");
        check(top >= 0 && left >= 0 && top <= from.height - to.height / scale && left <= from.width - to.width / scale,
              "the output must be `scale` times as large as a part of the input");
        const ptrdiff_t size = sample_size(to.kind);
        check(to.band == size && to.column == 3 * size, "the output's pixels must be contiguous");
        check(threads >= 1 && threads <= 1024, "expected 1 to 1024 threads");
        span->network.run(from, to, static_cast<int>(top), static_cast<int>(left), threads);
    });
}

void dsclora_destroy(dsclora_span* span) { delete span; }

int dsclora_fold(const dsclora_tensor* tensors, int count, int scale, int channels, float* joint, float* joint_bias,
                 float* pointwise, char* error, size_t error_size) {
    return guarded(error, error_size, [&] {
        const FoldedSpan folded = fold(tensors, count, channels, scale);
        const Layer& conv = folded.convs[JOINT];
        std::copy(conv.weight.begin(), conv.weight.end(), joint);
        std::copy(conv.bias.begin(), conv.bias.end(), joint_bias);
        std::copy(folded.pointwise.weight.begin(), folded.pointwise.weight.end(), pointwise);
    });
}
