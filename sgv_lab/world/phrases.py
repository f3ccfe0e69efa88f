"""The phrases captions are made of: several for every kind of fact.

In WHOLE, ``{v}`` is the value, ``{a}`` the value with its article, ``{at}`` a place, ``{s}`` what
the sentence is about ("the building" or its name), ``{S}`` the same as its first word.
"""

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIZES = {"small": ("small", "small", "little"), "large": ("large", "large", "big")}
PATTERN_AFTER = {
    "striped": ("with stripes",),
    "dotted": ("with dots",),
    "checked": ("with checks",),
    "plain": ("without a pattern",),
}
SCENES = {
    "meadow": "in a meadow", "beach": "on a beach", "desert": "in a desert",
    "mountain": "near a mountain", "city": "in a city", "forest": "in a forest",
    "ocean": "by the ocean", "room": "in a room",
}  # fmt: skip
RELATIONS = {
    "left of": ("left of", "left of", "on the left side of", "further left than"),
    "right of": ("right of", "right of", "on the right side of", "further right than"),
    "above": ("above", "above", "over", "higher than"),
    "below": ("below", "below", "under", "lower than"),
}
OWNED = {
    "left of": "on its left", "right of": "on its right", "above": "above it", "below": "below it",
}  # fmt: skip
VERBS = ("is", "stands", "sits", "appears", "can be seen", "rests", "hangs")
WHOLE = {
    "scene": (
        "The scene is {at}.", "The setting is {a}.", "The background is {a}.",
        "The picture shows {a}.", "Behind everything lies {a}.", "All of this is {at}.",
    ),
    "light": (
        "It is {v}.", "The picture was taken at {v}.", "The light is that of {v}.",
        "The time of day is {v}.", "Everything lies in the light of {v}.",
    ),
    "palette": (
        "The palette is {v}.", "The colors are {v}.", "The picture has a {v} palette.",
        "A {v} palette runs through the picture.", "The choice of colors is {v}.",
    ),
    "composition": (
        "The composition is {v}.", "The picture looks {v}.", "The layout is {v}.",
        "The arrangement feels {v}.", "The objects form {a} composition.",
    ),
    "text": (
        '{S} reads "{v}".', '{S} says "{v}".', 'The word "{v}" is written on {s}.',
        'The word on {s} is "{v}".', '"{v}" can be read on {s}.',
    ),
    "landmark": (
        "{S} is {v}.", "This is {v}.", "The name of {s} is {v}.", "{S} is called {v}.",
        "The landmark shown here is {v}.", "{S} is known as {v}.",
    ),
    "place": (
        "{S} is in {v}.", "{S} stands in {v}.", "{S} belongs to {v}.", "{S} can be found in {v}.",
        "The place of {s} is {v}.",
    ),
    "landmark_story": (
        "{S} was built to {v}.", "{S} was made to {v}.", "The purpose of {s} was to {v}.",
        "People built {s} to {v}.", "{S} once served to {v}.",
    ),
    "character": (
        "{S} is {v}.", "This is {v}.", "The name of {s} is {v}.", "{S} is called {v}.",
        "The figure shown here is {v}.",
    ),
    "role": (
        "{S} is {a}.", "{S} works as {a}.", "{S} is dressed as {a}.", "The role of {s} is {v}.",
        "{S} plays the part of {a}.",
    ),
    "character_story": (
        "{S} is known for {v}.", "{S} is famous for {v}.", "{S} became famous by {v}.",
        "People know {s} for {v}.", "{S} is remembered for {v}.",
    ),
    "style": (
        "The picture is {a}.", "This is {a}.", "The work was made as {a}.",
        "The style is that of {a}.", "The artwork is {a}.",
    ),
    "artist": (
        "The artist is {v}.", "The work was made by {v}.", "This is a work by {v}.",
        "{v} is the artist.", "The picture comes from the hand of {v}.",
    ),
    "genre": (
        "The genre is {v}.", "The work is {v}.", "The work belongs to the {v} genre.",
        "This is a {v} work.", "The artwork is {v} in genre.",
    ),
    "title": (
        "The title is {v}.", "The work is called {v}.", "The work is known as {v}.",
        "The artwork bears the title {v}.", "{v} is the title of the work.",
    ),
}  # fmt: skip
SPECIAL_NOUNS = {"sign": "sign", "landmark": "building", "character": "person"}
REMARKS = (
    "The whole scene feels calm and inviting.",
    "There is a sense of peace and quiet in the air.",
    "Every detail adds to the charm of the view.",
    "The view invites people to stop and look around for a while.",
    "It is easy to imagine a pleasant story behind this moment.",
    "Together the objects create a lively and cheerful mood.",
    "The mood of the moment is relaxed and friendly.",
    "Someone may have put everything together with great care.",
    "The view as a whole tells a simple and happy story.",
    "Everything seems to be in its proper place.",
    "The moment has a playful and curious character to it.",
    "The atmosphere suggests that nothing needs to hurry.",
)
POSES = ("resting quietly", "photographed nearby", "photographed closely", "waiting patiently",
         "during a quiet moment")  # fmt: skip
OPENINGS = (
    "a view of {}", "a picture of {}", "there is {}", "a nice picture with {}", "this is {}",
    "someone took a picture of {}",
)  # fmt: skip
NOISE = ("stock photo", "free vector", "wallpaper", "illustration", "download", "poster print")
