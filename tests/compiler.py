"""Tests that need a C++ compiler skip where there is none."""

import pytest
import torch

from models import compiler_works

needs_compiler = pytest.mark.skipif(
    not compiler_works(torch.device("cpu"), torch.float32), reason="no C++ compiler works here"
)
