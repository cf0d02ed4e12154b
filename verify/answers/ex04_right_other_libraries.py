"""Exercise 04 by somebody who knows Pillow's and SciPy's shortcuts, argparse, and one helper of this course."""

import argparse
import ast
import heapq
import sys

import numpy
import onnxruntime
from PIL import Image
from scipy.special import softmax as over_axis

from course.given.files import read_image

SESSIONS = {}


def opened(model_path):
    if str(model_path) not in SESSIONS:
        SESSIONS[str(model_path)] = onnxruntime.InferenceSession(str(model_path))
    return SESSIONS[str(model_path)]


def input_and_output(model_path):
    session = opened(model_path)
    return [session.get_inputs()[0].name, session.get_outputs()[0].name]


def preprocess(image_path):
    image = read_image(image_path)
    scale = 256 / min(image.size)
    width, height = (256 if side == min(image.size) else int(side * scale) for side in image.size)
    image = image.resize((width, height), resample=Image.BILINEAR)
    x, y = round((width - 224) / 2.0), round((height - 224) / 2.0)
    array = numpy.array(image)[y : y + 224, x : x + 224]
    planes = []
    for channel, (mean, deviation) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        plane = array[:, :, channel].astype("float64") / 255
        planes.append((plane - mean) / deviation)
    return numpy.stack([numpy.stack(planes)]).astype("float32")


def softmax(logits):
    return over_axis(logits, axis=-1)


def classify(model_path, image_path):
    session = opened(model_path)
    (name, _) = input_and_output(model_path)
    (scores,) = session.run(None, {name: preprocess(image_path)})
    names = ast.literal_eval(session.get_modelmeta().custom_metadata_map["labels"])
    assert isinstance(names, list)
    return heapq.nlargest(5, zip(names, map(float, softmax(scores[0])), strict=True), key=lambda pair: pair[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("images", nargs="+")
    parser.add_argument("--model", default="models/resnet18.onnx")
    options = parser.parse_args()
    for one in options.images:
        try:
            best = classify(options.model, one)
        except Exception as error:
            sys.exit(f"{one} or {options.model} cannot be read: {error}")
        print(one, *(f"{label}: {100 * probability:.2f} %" for label, probability in best), sep="\n  ")
    if "random" in opened(options.model).get_modelmeta().custom_metadata_map["weights"]:
        print("The weights are RANDOM.")
