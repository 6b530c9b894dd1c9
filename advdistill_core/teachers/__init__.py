"""Teachers: they turn rendered prompts into sampled responses.

`teachers.local.sample` works on a loaded model; evaluation uses it too. This package
imports torch only in `local` and what it uses, so that stages can be planned without.
"""

from advdistill_core.teachers.protocol import (
    Request,
    Response,
    Sampling,
    Teacher,
    request_hash,
    response_seed,
)

__all__ = ["Request", "Response", "Sampling", "Teacher", "request_hash", "response_seed"]
