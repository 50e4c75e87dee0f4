#!/usr/bin/env python3
"""Write cases: what an installed transformers makes of a small checkpoint of each model, and what
it saves of it, tensor by tensor.

    python -m venv venv && venv/bin/pip install torch 'transformers==5.24.*' timm scipy
    venv/bin/python scripts/make_cases.py /tmp/cases                              # every class that
an Auto class or the registry names
    venv/bin/python scripts/make_cases.py /tmp/cases --only hiera JambaModel      # some model types
or classes
    venv/bin/python scripts/make_cases.py /tmp/cases --variants tied prefixed     # further cases of
each; `all` for every kind
    venv/bin/python scripts/make_cases.py /tmp/again --like tests/fixtures/cases  # the cases there
once more, from their configurations

A case is one JSON file, in the format of tests/fixtures/cases/README.md. No tensor is stored: its
data is a function of its key (`data`). What is done for each class, in a process of its own:

  1. its default configuration is made small (`small.py`), and a model of it built at random;
  2. what `save_pretrained` writes of that model gives the keys and shapes of the checkpoint; a
variant changes them;
  3. the checkpoint is filled with data by key, and the real `from_pretrained` loads it: that is
`model`;
  4. the model is filled with data by key, and the real `save_pretrained` writes it: that is
`saved`.

Cases that are there already are passed over; `failed.txt` in the directory names the classes that
transformers itself can't take this way, and why.
"""

import argparse
import os
import signal
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)


def start(out, name, what, seconds):
    """Runs `what` in a process of its own, and says how it ended: None or why it failed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        signal.alarm(seconds)
        try:
            what()
            why = ""
        except Exception as error:  # any class may refuse its own configuration
            why = f"{type(error).__name__}: {error}"[:300] or "failed"
            if os.environ.get("TRACE"):
                traceback.print_exc()
        with os.fdopen(write, "w") as pipe:
            pipe.write(why)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        why = pipe.read()
    _, status = os.waitpid(child, 0)
    if status:
        why = "took too long" if os.WTERMSIG(status) == signal.SIGALRM else f"ended by {status}"
    why = " ".join(why.split())
    if why:
        with open(os.path.join(out, "failed.txt"), "a") as f:
            f.write(f"{name}: {why}\n")
    return why


def main():
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    args.add_argument("out", help="the directory that cases go to")
    args.add_argument("--only", nargs="*", help="these model types or classes")
    args.add_argument(
        "--variants", nargs="*", default=["plain"], help="which kinds of case; `all` for every kind"
    )
    args.add_argument(
        "--like", help="a directory of cases whose configurations and checkpoints are taken"
    )
    args.add_argument("--part", default="1/1", help="the second of three parts is 2/3")
    args.add_argument("--seconds", type=int, default=120, help="how long one class may take")
    options = args.parse_args()
    os.makedirs(options.out, exist_ok=True)
    # transformers only ever reads what is written here
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

    import torch
    import transformers

    # And all that every model needs, once for all processes.
    import transformers.models.llama.modeling_llama
    from graft_import.cases import VARIANTS, again, make
    from graft_import.probe import BORROWED, classes

    # a process that was forked may not use the threads of its parent
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    part, parts = map(int, options.part.split("/"))
    jobs = []
    if options.like:
        for file in sorted(os.listdir(options.like)):
            if file.endswith(".json") and (not options.only or file[:-5] in options.only):
                path = os.path.join(options.like, file)
                jobs.append(
                    (
                        file[:-5],
                        lambda path=path, name=file[:-5]: again(
                            path, os.path.join(options.out, name + ".json")
                        ),
                    )
                )
    else:
        kinds = list(VARIANTS) if "all" in options.variants else options.variants
        for model_type, name in classes():
            if not options.only or name in options.only or model_type in options.only:
                jobs.append(
                    (name, lambda name=name: make(getattr(transformers, name), kinds, options.out))
                )
        for borrower, name in BORROWED.items():
            if not options.only or borrower in options.only:
                what = (getattr(transformers, name), kinds, options.out, borrower)
                jobs.append((borrower, lambda what=what: make(*what)))
    for n, (name, job) in enumerate(jobs):
        if n % parts == part - 1:
            began = time.time()
            why = start(options.out, name, job, options.seconds)
            print(
                f"{n + 1}/{len(jobs)} {name} {time.time() - began:.1f}s {why}",
                file=sys.stderr,
                flush=True,
            )


if __name__ == "__main__":
    main()
