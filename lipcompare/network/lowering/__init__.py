"""Lowering: the operations of a source model, written as linear maps and elementwise activations.

The importers (:mod:`~lipcompare.network.from_torch`, :mod:`~lipcompare.network.from_onnx`) translate names and
attributes; everything that knows what an operation *means* is here, once:

``builder``      nodes, shapes of values, and :func:`~lipcompare.network.lowering.builder.rearrange`
``arithmetic``   sums, products with constants, dense layers, batch norm, sums and means over axes
``convolution``  convolution and its transpose
``pooling``      average and max pooling
``piecewise``    abs, clip, min, max, sort of two, ...: all from ReLUs
"""
