"""What runs a twin elsewhere: C99, ONNX, FMU, and a stream of samples."""
