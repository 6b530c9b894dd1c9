"""Python imports this at its start: a fault that the environment asks for waits for its moment."""

import json
import os
import sys

from injection import Injection

if os.environ.get("ADVDISTILL_FAULT"):
    sys.addaudithook(Injection(json.loads(os.environ["ADVDISTILL_FAULT"])))
