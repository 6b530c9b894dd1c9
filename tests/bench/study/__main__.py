"""`python -m tests.bench.study prepare | run | tables`; see README.md beside it."""

import argparse
from pathlib import Path

import torch

from advdistill_core.compare import ARMS, MAIN
from tests.bench.study import setting
from tests.bench.study.run import run_all

EFFECTS = tuple(name for name in ARMS if name not in (*MAIN, "tau-0.5"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.study", description=__doc__)
    parser.add_argument("command", choices=["prepare", "run", "tables"])
    parser.add_argument("--folder", type=Path, default=Path("study"))
    parser.add_argument("--setting", choices=[*setting.SETTINGS], default="sums", help="see README.md")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: shows that it runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--arms", nargs="+", default=[*MAIN, *EFFECTS])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = arguments.folder.absolute()
    name = "smoke" if arguments.smoke else arguments.setting
    chosen = setting.SETTINGS[name]
    if arguments.command == "tables":
        from tests.bench.study.tables import write_tables

        results = Path(__file__).parent / "results"
        write_tables(folder, results if name == "sums" else results / name)
        return
    setting.prepare(folder, chosen)
    if arguments.command == "run":
        run_all(folder, chosen, arguments.arms, arguments.seeds)


if __name__ == "__main__":
    main()
