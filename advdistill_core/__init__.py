"""Reward-guided dataset distillation: the pure library under the flows.

Nothing here knows Prefect or keeps global state. Modules that need torch import it
where they use it, so that configuration, the store and the command line stay fast.
"""

__version__ = "0.1.0"
