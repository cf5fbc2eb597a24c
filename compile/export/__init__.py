"""Module → ONNX → TensorRT engine, each compared with the one before."""
