"""Measure how fast, how exact and how large a network is on this machine, window by window.

  python benchmark.py --model DeepPro --height 256 --width 256 --output out.json

Three paths through the same weights take turns, so that a busy machine slows all of them alike:
`plain`, the module as it is trained, in fp32; `plain_tuned_allocator`, the same with freed memory
kept; `prepared`, what the detector runs. What is timed is the network, from normalised frames to
logits. Each is a process of its own, for the allocator is a process's own, and so is its peak of
memory. A product of two 2048 x 2048 matrices in fp32 takes its turn with them: what it reaches is
the measure of the machine.

  python benchmark.py --stream 10000 --height 512 --width 512 --output memory.png

streams so many random frames through the detector instead, and draws the memory of the process.
"""

import argparse
import multiprocessing
import time
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from engine import load_network
from models import (
    PRECISIONS,
    Detector,
    build_network,
    compiler_works,
    network_names,
    prepare,
)
from models.windows import overlap
from utils.devices import choose_device, set_up_arithmetic
from utils.errors import InputError, explain, run_command
from utils.files import writable_folder, write_json
from utils.logs import progress
from utils.memory import peak_memory, resident_memory, start_of_peak
from utils.options import Parser, add_device, folder, number_above, one_of
from utils.plots import plot_memory
from utils.processes import end_with_main, signals_held
from utils.reports import text_table, versions
from utils.runs import find_run

PATHS = ("plain", "plain_tuned_allocator", "prepared")
CHECKED = (131, 143)  # size of the frames, of several tiles, that are compared in float64
SIDE = 2048  # of the matrices


class Setting(NamedTuple):
    """What a path is measured on; goes to its process."""

    model: str
    run: Path | None
    seqlen: int
    height: int
    width: int
    device: torch.device
    precision: str
    compiled: bool


def build(setting: Setting) -> nn.Module:
    """The network in eval mode: of a run, else fresh with BatchNorms that fit random frames."""
    if setting.run:
        return load_network(find_run(".", setting.run), seqlen=setting.seqlen).network.eval()
    torch.manual_seed(0)
    network = build_network(setting.model, setting.seqlen).train()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm3d):
            norm.momentum = 1
    with torch.no_grad():
        network(torch.randn(2, 1, setting.seqlen, 32, 32))
    return network.eval()


def build_path(path: str, setting: Setting):
    """Normalised frames [T, H, W] in fp32 to logits [T, H, W], one way or the other."""
    network = build(setting).to(setting.device)
    if path == "prepared":
        dtype = PRECISIONS[setting.precision]
        infer = prepare(network, dtype=dtype, compiled=setting.compiled)
        return lambda frames: infer(frames.to(dtype))
    return lambda frames: network(frames[None, None])[0]


def serve(connection: Connection, path: str, setting: Setting) -> None:
    """One path in a process of its own: answers `window`, `peak` and `error`."""
    set_up_arithmetic(keep_memory=path != "plain")
    end_with_main()
    try:
        infer = build_path(path, setting)
        torch.manual_seed(1)
        frames = torch.randn(setting.seqlen, setting.height, setting.width).to(setting.device)
        before = start_of_peak(setting.device)
        answers = {
            "window": lambda: seconds(lambda: infer(frames), setting.device),
            "peak": lambda: (peak_memory(setting.device) - before) / 2**20,
            "error": lambda: probability_error(infer, setting),
        }
        connection.send("ready")
        while (question := connection.recv()) != "end":
            with torch.no_grad():
                connection.send(answers[question]())
    except (EOFError, ConnectionError):  # the main process has gone
        return
    except Exception as error:  # whatever it is, the main process is to say it
        connection.send(InputError(f"path {path!r}: {explain(error)[0].removeprefix('error: ')}"))


def seconds(work, device: torch.device) -> float:
    """The time that a call takes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def probability_error(infer, setting: Setting) -> float:
    """The largest difference in probability from the plain module in float64."""
    torch.manual_seed(2)
    H, W = min(CHECKED[0], setting.height), min(CHECKED[1], setting.width)
    frames = torch.randn(setting.seqlen, H, W)
    exact = build(setting).double()(frames.double()[None, None])[0].sigmoid()
    logits = infer(frames.to(setting.device))
    return (logits.double().cpu().sigmoid() - exact).abs().max().item()


def macs_per_frame(network: nn.Module, setting: Setting) -> float:
    """Multiply-adds of the plain module a frame, as torch counts them (FLOPs / 2)."""
    side = 32
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 1, setting.seqlen, side, side))
    pixels = setting.height * setting.width / side**2
    return counter.get_total_flops() / 2 / setting.seqlen * pixels


def measure(setting: Setting, paths: list[str], repeats: int) -> list[dict]:
    """A row for every path, from `repeats` windows each in turn after one to warm up."""
    lines = start_paths(setting, paths)
    rate, times = take_turns(setting, lines, repeats)
    network = build(setting)
    about = {
        "macs_per_frame": macs_per_frame(network, setting),
        "parameters": sum(p.numel() for p in network.parameters()),
        "matmul_gflops": rate / 1e9,
        "device": str(setting.device),
    }
    rows = [row_of(path, setting, line, times, about) for path, line in lines.items()]
    for line in lines.values():
        line.send("end")
    return rows


def start_paths(setting: Setting, paths: list[str]) -> dict[str, Connection]:
    """A process for every path; the lines to them, once they are ready."""
    context = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # as signals_held asks for
    lines = {}
    for path in paths:
        lines[path], theirs = context.Pipe()
        with signals_held():
            context.Process(target=serve, args=(theirs, path, setting), daemon=True).start()
        theirs.close()
        ask(lines[path], path)
    return lines


def take_turns(
    setting: Setting, lines: dict[str, Connection], repeats: int
) -> tuple[float, dict[str, float]]:
    """FLOP/s of the product of matrices and seconds a window by path, medians over the turns."""
    rates, times = [], {path: [] for path in lines}
    matrix = torch.randn(SIDE, SIDE, device=setting.device)
    with progress((repeats + 1) * len(lines), "window", "measure") as bar:
        for repeat in range(repeats + 1):
            for path, line in lines.items():
                products = seconds(lambda: [matrix @ matrix for _ in range(3)], setting.device)
                spent = ask(line, path, "window")
                if repeat:  # the first is to warm up
                    rates.append(6 * SIDE**3 / products)
                    times[path].append(spent)
                bar.update()
    return median(rates), {path: median(spent) for path, spent in times.items()}


def row_of(
    path: str, setting: Setting, line: Connection, times: dict[str, float], about: dict
) -> dict:
    """What is reported of a path; `times` are seconds a window, `about` is the same for all."""
    spent = times[path]
    flops = 2 * about["macs_per_frame"] * setting.seqlen
    return {
        "path": path,
        "fps": (setting.seqlen - overlap(setting.seqlen)) / spent,
        "ms_per_window": 1e3 * spent,
        "peak_memory_mb": ask(line, path, "peak"),
        "max_probability_error": ask(line, path, "error"),
        "share_of_matmul_rate": flops / spent / (1e9 * about["matmul_gflops"]),
        "times_plain": times["plain"] / spent if "plain" in times else None,
        **about,
    }


def measure_stream(setting: Setting, frames: int) -> list[tuple[int, float]]:
    """(Frames answered, resident memory in MB), every hundred frames of a detector's stream."""
    detector = Detector(
        build(setting), 128.0, 40.0, setting.device, setting.precision, compiled=setting.compiled
    )
    rng = np.random.default_rng(0)
    size = (setting.height, setting.width)
    noise = (rng.integers(0, 256, size, np.uint8) for _ in range(frames))
    record = []
    with progress(frames, "frame", "stream") as bar:
        for done, _ in enumerate(detector.stream(noise), start=1):
            bar.update()
            if done % 100 == 0 or done == frames:
                record.append((done, resident_memory() / 2**20))
    return record


def ask(line: Connection, path: str, question: str | None = None):
    """A path's answer; RuntimeError if its process is gone."""
    try:
        if question:
            line.send(question)
        answer = line.recv()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise RuntimeError(
            f"the process of path {path!r} ended: did the memory run out? try smaller frames, or "
            "leave it out with --paths"
        ) from None
    if isinstance(answer, InputError):
        raise answer
    return answer


def build_parser() -> Parser:
    parser = Parser(prog="benchmark.py", description=__doc__)
    group = parser.add_argument_group("network")
    names = network_names()
    group.add_argument(
        "--model", type=one_of("model", names), metavar="NAME",
        help=f"{', '.join(names)}; default: {names[0]}",
    )  # fmt: skip
    group.add_argument(
        "--weights", type=folder, metavar="RUN", help="folder of a run, in place of --model"
    )
    group.add_argument(
        "--seqlen", type=number_above(0, int), metavar="T",
        help="frames in a window; default: the run's, or else 40",
    )  # fmt: skip
    group.add_argument("--precision", choices=list(PRECISIONS), default="fp32", help="arithmetic")
    group.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=False,
        help="compile what is done to a tile: in C++ on a CPU, with torch.compile on a GPU",
    )  # fmt: skip
    group = parser.add_argument_group("measurement")
    size = {"type": number_above(3, int), "default": 256}
    group.add_argument("--height", help="rows of a frame", **size)
    group.add_argument("--width", help="columns of a frame", **size)
    group.add_argument("--repeats", type=number_above(0, int), default=5, help="windows a path")
    group.add_argument(
        "--paths", nargs="+", choices=PATHS, default=list(PATHS),
        help="which to measure",
    )  # fmt: skip
    group.add_argument(
        "--stream", type=number_above(0, int), metavar="FRAMES",
        help="stream so many frames and draw the memory over them, to --output FILE.png",
    )  # fmt: skip
    group.add_argument(
        "--output", type=folder, metavar="FILE", help="write the rows here too, as JSON"
    )
    add_device(parser)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def show(about: dict, rows: list[dict]) -> None:
    """The rows as a table, and what they were measured on."""
    heading = ("path", "ms a window", "frames/s", "x plain", "of matmul", "peak MB", "error")
    table = []
    for row in rows:
        ratio = f"{row['times_plain']:.1f}" if row["times_plain"] else ""
        figures = (f"{row['ms_per_window']:.0f}", f"{row['fps']:.1f}", ratio)
        share, error = f"{row['share_of_matmul_rate']:.2f}", f"{row['max_probability_error']:.1e}"
        table.append((row["path"], *figures, share, f"{row['peak_memory_mb']:.0f}", error))
    print(text_table([heading, *table]))
    print(
        f"{about['model']}, {rows[0]['parameters']:,} parameters, "
        f"{rows[0]['macs_per_frame'] / 1e9:.2f} G multiply-adds a frame of {about['height']} x "
        f"{about['width']}, windows of {about['seqlen']}; {about['precision']}, "
        f"{'' if about['compiled'] else 'not '}compiled, on "
        f"{about['device']}, {about['threads']} threads, "
        f"matmul {rows[0]['matmul_gflops']:.0f} GFLOP/s"
    )


def main() -> None:
    options = build_parser().parse_args()
    device = choose_device(options.device, options.gpu)
    set_up_arithmetic()
    if options.output:
        writable_folder(options.output.parent, "name another file with --output")
    if options.stream and (not options.output or options.output.suffix != ".png"):
        raise InputError("--stream draws a picture: give --output FILE.png")
    model, seqlen = options.model or network_names()[0], options.seqlen or 40
    if options.weights:
        if options.model:
            raise InputError("--weights says the model: leave out --model")
        loaded = load_network(find_run(".", options.weights), seqlen=options.seqlen)
        model, seqlen = loaded.model, loaded.network.seqlen
    compiled = options.compile and compiler_works(device, PRECISIONS[options.precision])
    setting = Setting(
        model, options.weights, seqlen, options.height, options.width, device,
        options.precision, compiled,
    )  # fmt: skip
    if options.stream:
        record = measure_stream(setting, options.stream)
        plot_memory(options.output, record, f"{model}, {options.height} x {options.width}")
        settled = [memory for done, memory in record if done > options.stream / 10]
        print(f"{min(settled):.0f} to {max(settled):.0f} MB after the first tenth of the frames")
        print(f"wrote {options.output}")
        return
    rows = measure(setting, list(dict.fromkeys(options.paths)), options.repeats)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    about = {
        **{key: getattr(setting, key) for key in ("model", "precision", "compiled", "seqlen")},
        **{"height": setting.height, "width": setting.width},
        **{"device": name, "threads": torch.get_num_threads(), "versions": versions()},
    }
    if options.output:
        write_json(options.output, {**about, "rows": rows})
    show(about, rows)


if __name__ == "__main__":
    run_command(main)
