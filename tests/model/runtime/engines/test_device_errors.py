import pytest

from model.runtime.engines.device_errors import DeviceMemoryError, first_line, memory_errors, ran_out

# As the runtimes word them.
NO_MEMORY = [
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. Name:'conv1' "
    "Status Message: bfc_arena.cc:376 void* AllocateRawInternal() Failed to allocate memory for requested buffer of "
    "size 3276800000",
    "bfc_arena.cc:342 AllocateRawInternal Available memory of 1048576 is smaller than requested bytes of 4194304",
    "CUDA failure 2: out of memory ; GPU=0 ; hostname=host ; expr=cudaMalloc((void**)&p, size);",
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
    "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
    "CUDNN failure 4003: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "TensorRT EP execution context enqueue failed: OutOfMemory",
    "Exception from src/inference/src/cpp/infer_request.cpp:223:\nstd::bad_alloc",
    "bad allocation",
    "could not execute a primitive: out_of_memory",
    "[json.exception] Cannot allocate memory",
]
OTHER = [
    "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: images",
    "CUDA failure 700: an illegal memory access was encountered",
    "CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED",
    "Non-zero status code returned while running Reshape node",
    "",
]


@pytest.mark.parametrize("text", NO_MEMORY)
def test_every_runtimes_words_for_no_memory_are_known(text: str) -> None:
    with pytest.raises(DeviceMemoryError, match=r"^device cuda: memory ran out: [^\n]+$"), memory_errors("cuda"):
        raise RuntimeError(text)


@pytest.mark.parametrize("text", OTHER)
def test_other_errors_pass_as_they_are(text: str) -> None:
    error = RuntimeError(text)
    with pytest.raises(RuntimeError) as caught, memory_errors("cuda"):
        raise error
    assert caught.value is error


def test_pythons_own_error_counts() -> None:
    assert ran_out(MemoryError())
    with pytest.raises(DeviceMemoryError, match="MemoryError"), memory_errors("openvino"):
        raise MemoryError


def test_one_line_is_said_and_it_is_the_one_that_says_something() -> None:
    text = "Exception from src/core/a.cpp:1:\nCheck 'x' failed at b.cpp:2:\n\n  the shape is wrong  \nmore"
    assert first_line(RuntimeError(text)) == "the shape is wrong"
    assert first_line(RuntimeError("Exception from src/core/a.cpp:1:")) == "Exception from src/core/a.cpp:1:"
    assert first_line(RuntimeError("")) == "RuntimeError"
    assert len(first_line(RuntimeError("x" * 1000))) == 300
