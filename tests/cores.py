"""What tests need of the emulator cores."""

import pytest

from actors import fceumm

needs_fceumm = pytest.mark.skipif(not fceumm.is_installed(), reason="the group `fast` is not installed")
