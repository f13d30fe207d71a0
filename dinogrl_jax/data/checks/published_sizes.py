"""The sizes of data sets as their authors state them, after their filters if they have any.

Source: the papers of HITSZ-VCM and BUPTCampus, and the comments of M3-ReID's and X-ReID's readers.
"""

TOTALS = {
    "vcm": {  # all but the first count tracklets of 12 frames or more
        "listed tracklets": 21863,
        "identities": 927,
        "training identities": 500,
        "training tracklets": 9751,
        "visible training tracklets": 5460,
        "infrared training tracklets": 4291,
        "training frames": 224757,
        "test tracklets": 9683,
        "test frames": 224116,
        "infrared queries": 4584,
        "visible gallery": 5099,
        "visible queries": 5099,
        "infrared gallery": 4584,
    },
    "bupt": {
        "training identities": 1074,
        "training tracklets": 7148,
        "visible training tracklets": 3574,
        "infrared training tracklets": 3574,
        "training frames": 796138,
        "test tracklets": 5920,
        "test frames": 48521 + 53417 + 2 * 298771,
        "infrared queries": 536,
        "visible gallery": 2422,
        "visible queries": 540,
        "infrared gallery": 2422,
    },
}
