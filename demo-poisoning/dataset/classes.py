"""The one list of classes: the 43 signs of the German benchmark GTSRB, with their numbers there.

The position in this list is the class number of our models. Stop is 0 and yield is 1. The first ten are the
signs that signs.py can draw, and the default of every script. A model with K outputs knows the first K.
"""

from __future__ import annotations

# Stallkamp et al., "Man vs. computer" (Neural Networks 2012), Figure 1; the numbers are the folder names.
GTSRB_ID = {
    "stop": 14,
    "yield": 13,
    "priority_road": 12,
    "no_entry": 17,
    "general_caution": 18,
    "speed_50": 2,
    "ahead_only": 35,
    "keep_right": 38,
    "roundabout": 40,
    "end_of_limits": 32,
    # from here on photographs only (get_gtsrb.py)
    "speed_20": 0,
    "speed_30": 1,
    "speed_60": 3,
    "speed_70": 4,
    "speed_80": 5,
    "end_of_80": 6,
    "speed_100": 7,
    "speed_120": 8,
    "no_passing": 9,
    "no_passing_trucks": 10,
    "right_of_way": 11,
    "no_vehicles": 15,
    "no_trucks": 16,
    "curve_left": 19,
    "curve_right": 20,
    "double_curve": 21,
    "bumpy_road": 22,
    "slippery_road": 23,
    "narrows_right": 24,
    "road_work": 25,
    "traffic_signals": 26,
    "pedestrians": 27,
    "children": 28,
    "bicycles": 29,
    "ice_or_snow": 30,
    "wild_animals": 31,
    "turn_right": 33,
    "turn_left": 34,
    "ahead_or_right": 36,
    "ahead_or_left": 37,
    "keep_left": 39,
    "end_no_passing": 41,
    "end_no_passing_trucks": 42,
}
NAMES = tuple(GTSRB_ID)
DRAWN = NAMES[:10]
