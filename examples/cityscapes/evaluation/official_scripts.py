"""Runs the official evaluation scripts: `python official_scripts.py JOB.json RESULT.json`.

This is a separate program that imports none of our code. The official scripts keep their settings
in module globals, end with `sys.exit`, and call a function that numpy has removed; in a process of
its own, none of that affects the caller.
"""

import json
import math
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np


def main(job_path: str, result_path: str) -> None:
    """Evaluate what the job lists.

    The job holds `label_ids`, `instance_ids` and `semantic`, which are lists of files in the same
    order. Optional are `instance`, with its folder `root`; `distances`, by the file of the instance
    ids and by instance; and `panoptic`, the table of predicted segments, with `truth`, a folder
    that holds the instance ids as a dataset does.
    """
    # cityscapesScripts 2.3.0 calls `in1d`, which numpy 2.4 has removed in favour of `isin`.
    vars(np).setdefault("in1d", lambda values, *rest: np.isin(np.ravel(values), *rest))
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    results = {"semantic": evaluate_semantic(job)}
    if job["instance"]:
        results["instance"] = evaluate_instances(job)
    if job["panoptic"]:
        results["panoptic"] = evaluate_panoptic(job)
    Path(result_path).write_text(json.dumps(results), encoding="utf-8")


def evaluate_semantic(job: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of the pixel-level script."""
    script = import_module("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    script.args.JSONOutput, script.args.quiet = False, True
    scores = script.evaluateImgLists(job["semantic"], job["label_ids"], script.args)
    return {name: scores[name] for name in scores if "Scores" in name or "average" in name}


def evaluate_instances(job: dict[str, Any]) -> dict[str, Any]:
    """Return the averages of the instance-level script."""
    name = "cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling"
    script: Any = import_module(name)
    # `matches.json`, a log for debugging, stumbles over the integers of numpy 2.
    script.writeDict2JSON = lambda *_: None
    args = script.args
    args.JSONOutput, args.quiet = False, True
    args.predictionPath = job["root"]
    # The script's cache of the true instances is inside the installed package by default. Filling
    # the cache is also the only way to tell the script about distances.
    args.gtInstancesFile = str(Path("gtInstances.json").absolute())
    truth = script.instances2dict(job["instance_ids"])
    for file, distances in job["distances"].items():
        for instance in (i for of_class in truth[file].values() for i in of_class):
            if str(instance["instID"]) in distances:
                instance["medDist"], instance["distConf"] = distances[str(instance["instID"])]
    Path(args.gtInstancesFile).write_text(json.dumps(truth), encoding="utf-8")
    args.distanceAvailable = bool(job["distances"])
    return script.evaluateImgLists(job["instance"], job["instance_ids"], args)["averages"]


def evaluate_panoptic(job: dict[str, Any]) -> dict[str, Any]:
    """Return the panoptic quality of all classes, of things and of stuff, and of each class."""
    script = import_module("cityscapesscripts.evaluation.evalPanopticSemanticLabeling")
    convert = import_module("cityscapesscripts.preparation.createPanopticImgs").convert2panoptic
    pq_average = script.PQStat.pq_average

    def of_none_is_nan(*args: Any, **kwargs: Any) -> Any:
        try:
            return pq_average(*args, **kwargs)
        except ZeroDivisionError:  # no class of this kind is in the images
            return {"pq": math.nan, "sq": math.nan, "rq": math.nan, "n": 0}, {}

    script.PQStat.pq_average = of_none_is_nan
    convert(job["truth"], str(Path.cwd()), useTrainId=False, setNames=["val"])
    truth, predicted = Path("cityscapes_panoptic_val").absolute(), Path(job["panoptic"])
    results = script.evaluatePanoptic(
        str(truth.with_suffix(".json")),
        str(truth),
        str(predicted),
        str(predicted.with_name("panoptic")),
        str(Path("panoptic_result.json").absolute()),
    )
    ids = {c["id"]: c["name"] for c in json.loads(predicted.read_text())["categories"]}
    per_class = {ids[k]: scores["pq"] for k, scores in results.pop("per_class").items()}
    return {**{kind: scores["pq"] for kind, scores in results.items()}, "per_class": per_class}


if __name__ == "__main__":
    main(*sys.argv[1:])
