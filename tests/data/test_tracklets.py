"""What must hold of tracklets."""

import pytest

from dinogrl_jax.data.tracklets import cameras, check_cameras
from dinogrl_jax.interface.errors import InputError


def test_training_tracklets_of_unknown_cameras_are_refused_where_cameras_are_needed(split):
    train = split[0]
    assert cameras(train) == tuple(sorted({t.camera for t in train}))
    check_cameras(train, "A method")
    unknown = [t._replace(camera=-1) if i in (2, 5) else t for i, t in enumerate(train)]
    assert -1 not in cameras(unknown)
    with pytest.raises(InputError, match="A method needs cameras") as caught:
        check_cameras(unknown, "A method")
    assert f"{unknown[2].frames[0]} and of 1 more is unknown" in str(caught.value)
