// The Python module: arrays in, arrays out, the interpreter's lock released in between.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>

#include "network.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace dsclora;

namespace {

using Array = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using AnyIn = nb::ndarray<nb::ro, nb::ndim<3>, nb::device::cpu>;
using AnyOut = nb::ndarray<nb::ndim<3>, nb::device::cpu>;

ptrdiff_t sample_size(Pixel kind) { return kind == Pixel::u8 ? 1 : kind == Pixel::u16 ? 2 : 4; }

std::vector<std::string> kernel_names() {
    std::vector<std::string> names;
    for (const Kernel* k : kernels()) names.emplace_back(k->name);
    return names;
}

Weights weights(const Array& weight, const Array* bias, int outputs, int inputs, int size, const char* name) {
    const bool fits = weight.ndim() == (size == 1 ? 2 : 4) && weight.shape(0) == size_t(outputs) &&
                      weight.shape(1) == size_t(inputs) && (size == 1 || (weight.shape(2) == 3 && weight.shape(3) == 3)) &&
                      (!bias || (bias->ndim() == 1 && bias->shape(0) == size_t(outputs)));
    if (!fits) throw std::invalid_argument(std::string(name) + ": weight or bias of another shape than expected");
    return {outputs, inputs, size, weight.data(), bias ? bias->data() : nullptr};
}

template <typename T>
Picture picture(T& array) {
    if (array.shape(2) != 3) throw std::invalid_argument("expected (h, w, 3)");
    Picture p;
    p.data = const_cast<void*>(static_cast<const void*>(array.data()));
    if (array.dtype() == nb::dtype<uint8_t>())
        p.kind = Pixel::u8;
    else if (array.dtype() == nb::dtype<uint16_t>())
        p.kind = Pixel::u16;
    else if (array.dtype() == nb::dtype<float>())
        p.kind = Pixel::f32;
    else
        throw std::invalid_argument("expected uint8, uint16 or float32");
    const ptrdiff_t size = sample_size(p.kind);
    // rows are counted in int, with room for the network's lag
    if (array.shape(0) < 1 || array.shape(1) < 1 || array.shape(0) > (1u << 28) || array.shape(1) > (1u << 24))
        throw std::invalid_argument("a picture must have 1 to 2^28 rows and 1 to 2^24 columns");
    p.height = static_cast<int>(array.shape(0)), p.width = static_cast<int>(array.shape(1));
    p.row = array.stride(0) * size, p.column = array.stride(1) * size, p.band = array.stride(2) * size;
    return p;
}

Network* make(const std::vector<Array>& body, const std::vector<Array>& biases, const Array& joint, const Array& joint_bias,
              const Array& pointwise, const Array& last, const Array& last_bias, int scale, const std::vector<float>& mean,
              float range, const std::string& name) {
    const Kernel* chosen = nullptr;
    for (const Kernel* k : kernels())
        if (!chosen && (name.empty() || name == k->name)) chosen = k;
    if (!chosen) throw std::invalid_argument("no kernel " + name + " for this processor");
    if (body.size() != 19 || biases.size() != 19) throw std::invalid_argument("expected 19 convs before the joint one");
    if (scale < 1 || scale > 4 || mean.size() != 3) throw std::invalid_argument("expected a scale of 1 to 4 and three means");
    if (body[0].ndim() != 4 || body[0].shape(0) < 1 || body[0].shape(0) > 4096)
        throw std::invalid_argument("body: expected weights of 1 to 4096 channels");
    const int c = static_cast<int>(body[0].shape(0));
    std::vector<Weights> convs;
    for (size_t n = 0; n < body.size(); ++n) convs.push_back(weights(body[n], &biases[n], c, n ? c : 3, 3, "body"));
    return new Network(*chosen, convs, weights(joint, &joint_bias, c, c + 3, 3, "joint"),
                       weights(pointwise, nullptr, c, 2 * c, 1, "pointwise"),
                       weights(last, &last_bias, 3 * scale * scale, c, 3, "last"), scale, mean.data(), range);
}

void run(Network& self, AnyIn from, AnyOut to, int threads) {
    const Picture in = picture(from), out = picture(to);
    const ptrdiff_t size = sample_size(out.kind);
    if (in.kind != out.kind || out.height != in.height * self.scale || out.width != in.width * self.scale)
        throw std::invalid_argument("the output must have the input's dtype and `scale` times its size");
    if (out.band != size || out.column != 3 * size) throw std::invalid_argument("the output's pixels must be contiguous");
    if (threads < 1 || threads > 1024) throw std::invalid_argument("expected 1 to 1024 threads");
    nb::gil_scoped_release unlocked;
    self.run(in, out, threads);
}

}  // namespace

NB_MODULE(_native, m) {
    m.def("kernels", &kernel_names, "Names of the instruction sets built in that this processor has, the best first.");
    nb::class_<Network>(m, "Span", "A plain SPAN ready to run.")
        .def(nb::new_(&make), "body"_a, "biases"_a, "joint"_a, "joint_bias"_a, "pointwise"_a, "last"_a, "last_bias"_a,
             "scale"_a, "mean"_a, "range"_a, "kernel"_a = "")
        .def("run", &run, "source"_a.noconvert(), "target"_a.noconvert(), "threads"_a,
             "Enlarge (h, w, 3), any strides, into (h * scale, w * scale, 3), rows of contiguous pixels: uint8, uint16, or "
             "float32 in 0..1.")
        .def_prop_ro("kernel", [](const Network& n) { return n.kernel.name; }, "Name of the instruction set.");
}
