"""mmseg's own ways to use a model, with our config and the shipped checkpoint."""

from pathlib import Path

import numpy as np
import pytest
from mmseg.apis import MMSegInferencer, inference_model, init_model

from tvit_seg.datasets.scenes import render_scene

ROOT = Path(__file__).parents[1]
CONFIG = str(ROOT / "configs/quickstart/thinkingvit_scenes-96x96.py")
CHECKPOINT = str(ROOT / "checkpoints/quickstart.pth")
EASY, HARD = 0.0, 0.9


def scene(difficulty, seed=1):
    return render_scene(np.random.default_rng(seed), difficulty, (96, 96))


@pytest.fixture(scope="module")
def model():
    found = init_model(CONFIG, CHECKPOINT, device="cpu")
    # the quickstart keeps each scene's difficulty, which an image of one's own has not
    found.cfg.test_pipeline[-1] = dict(type="PackSegInputs")
    return found


def test_shipped_checkpoint_segments(model):
    image, labels = scene(EASY)
    result = inference_model(model, image)
    prediction = result.pred_sem_seg.data[0].numpy()
    assert (prediction == labels).mean() > 0.9
    assert model.dataset_meta["classes"][0] == "background"


def test_hard_scenes_think_more_often(model):
    thinks = {
        difficulty: sum(
            int(inference_model(model, scene(difficulty, seed)[0]).exit_stage) for seed in range(20)
        )
        for difficulty in (EASY, HARD)
    }
    assert thinks[HARD] > thinks[EASY] + 5


def test_inferencer(tmp_path):
    inferencer = MMSegInferencer(CONFIG, CHECKPOINT, device="cpu", scope="mmseg")
    found = inferencer(scene(EASY)[0], return_vis=True, out_dir=str(tmp_path))
    assert found["predictions"].shape == (96, 96)
    assert list(tmp_path.rglob("*.jpg")) + list(tmp_path.rglob("*.png"))
