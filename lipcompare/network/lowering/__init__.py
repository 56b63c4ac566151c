"""Lowering: the operations of a source model, written as linear maps and elementwise activations.

The importers (:mod:`~lipcompare.network.from_torch`, :mod:`~lipcompare.network.from_onnx`) translate names and
attributes; everything that knows what an operation *means* is here, once:

``builder``      nodes, shapes of values, and :func:`~lipcompare.network.lowering.builder.rearrange`
``native``       activations that are nodes of the network
``unchanged``    dropout, casts, copies
``arithmetic``   sums, products with constants, dense layers, batch norm, sums and means over axes
``axes``         what is linear along one axis: running sums, interpolation
``convolution``  convolution and its transpose
``pooling``      average and max pooling
``piecewise``    abs, clip, min, max, sort, ...: all from ReLUs
``scaled``       smooth activations with parameters
``heads``        softmax
``refused``      attention, LayerNorm: why they are not supported
``products``     products and quotients that are activations in disguise
``decomposed``   activations that a tracer took apart
"""
