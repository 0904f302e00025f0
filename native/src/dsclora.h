/* The kernel's face, in plain C: what Python binds, and what anything else can.
 *
 * No exception crosses it. Functions that can fail write a sentence to `error`, cut to `error_size` bytes, if there is room.
 */
#ifndef DSCLORA_H
#define DSCLORA_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__) && !defined(DSCLORA_API)
#define DSCLORA_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* A plain SPAN, packed for an instruction set. Runs of one wait for each other; threads had better have one each. */
typedef struct dsclora_span dsclora_span;

/* One of the 44 tensors of a model file, such as "conv_cat.weight": float32, C-contiguous; read during the call alone. */
typedef struct {
    const char* name;
    const float* data;
    const int64_t* shape;
    int dimensions;
} dsclora_tensor;

enum { DSCLORA_U8 = 0, DSCLORA_U16 = 1, DSCLORA_F32 = 2 };

/* An RGB picture: `data` is its first sample; strides in bytes, of any sign, 0 too. Floats are in 0..1. */
typedef struct {
    void* data;
    int64_t height, width;
    ptrdiff_t row, column, band;
    int kind;
} dsclora_picture;

enum { DSCLORA_OK = 0, DSCLORA_WRONG_ARGUMENT = 1, DSCLORA_OUT_OF_MEMORY = 2 };

/* The instruction sets built in that this processor has, the best first: name of the n-th, or NULL beyond the last. */
DSCLORA_API const char* dsclora_kernel(int n);

/* A network ready to run, to be destroyed; NULL if it cannot be made. The network computes on (rgb - mean) * range, rgb in
 * 0..1; `scale` is 1 to 4, `channels` 1 to 4096; `kernel` is one of `dsclora_kernel`, or NULL for the best. */
DSCLORA_API dsclora_span* dsclora_create(const dsclora_tensor* tensors, int count, int scale, int channels, const float mean[3],
                                         float range, const char* kernel, char* error, size_t error_size);

/* The name of the instruction set that a network is packed for. */
DSCLORA_API const char* dsclora_kernel_of(const dsclora_span* span);

/* Enlarges a part of `source`, that from pixel (top, left) on, into `target`, whose height and width are `scale` times the
 * part's; the rest is what the network sees around it, and beyond it is zero. The part comes out as it would of the whole.
 * `target` has the source's kind; its rows are of contiguous pixels. Returns DSCLORA_OK or why not. */
DSCLORA_API int dsclora_run(dsclora_span* span, const dsclora_picture* source, const dsclora_picture* target, int64_t top,
                            int64_t left, int threads, char* error, size_t error_size);

/* NULL is allowed. */
DSCLORA_API void dsclora_destroy(dsclora_span* span);

/* What `dsclora_create` makes of the tensors before it packs them, for tests: weights of the conv that joins four depths,
 * (channels, channels + 3, 3, 3) and (channels,), and of the 1x1 one, (channels, 2 * channels). */
DSCLORA_API int dsclora_fold(const dsclora_tensor* tensors, int count, int scale, int channels, float* joint, float* joint_bias,
                             float* pointwise, char* error, size_t error_size);

#ifdef __cplusplus
}
#endif
#endif
