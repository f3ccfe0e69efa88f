"""The words questions are asked in: at least three wordings a kind of fact and form.

Questions speak of "the image" and are in the form of questions, captions speak of "the picture";
no five words in a row of a question are ever found in a caption. ``{k}`` is a kind of object,
``{v}`` the value asked about, ``{a}`` the value with its article, ``{at}`` a place.
"""

OPEN: dict[str, tuple[str, ...]] = {
    "existence": (
        "What object is {at} of the image?",
        "Which object do you see {at} of this image?",
        "Name the object {at} of the image.",
    ),
    "color": (
        "What color is the {k}?",
        "Which color does the {k} have?",
        "Name the color of the {k} in this image.",
    ),
    "size": (
        "How big is the {k}, small or large?",
        "Is the {k} of small or large size?",
        "What size does the {k} in this image have?",
    ),
    "pattern": (
        "What pattern does the {k} have?",
        "Which pattern covers the {k} in this image?",
        "Name the pattern on the {k}.",
    ),
    "position": (
        "Where in the image is the {k}?",
        "Which part of the image holds the {k}?",
        "In what part of this image do you see the {k}?",
    ),
    "relation": (
        "Where is the {k}, seen from the {b}?",
        "On which side of the {b} is the {k} in this image?",
        "How does the {k} lie with respect to the {b}?",
    ),
    "count": (
        "How many {ks} are there in this image?",
        "What is the number of {ks} in this image?",
        "How many {ks} do you see?",
    ),
    "scene": (
        "What place is shown in this image?",
        "Which setting does this image have?",
        "Where was this image made?",
    ),
    "light": (
        "What time of day is it in this image?",
        "At which time of day was this image taken?",
        "When during the day does this image take place?",
    ),
    "text": (
        "What does the sign say?",
        "Which word is on the sign in this image?",
        "What text do you read in this image?",
    ),
    "landmark": (
        "What is the name of this landmark?",
        "Which landmark does this image show?",
        "What is the building in this image called?",
    ),
    "place": (
        "Where in the world is this landmark?",
        "In which place would you visit this landmark?",
        "What is the location of the building in this image?",
    ),
    "landmark_story": (
        "What was this landmark built for?",
        "For which purpose was the building in this image made?",
        "Why was this landmark put up?",
    ),
    "character": (
        "Who is the person in this image?",
        "What is the name of this person?",
        "Which well known person does this image show?",
    ),
    "role": (
        "What is the role of this person?",
        "What does the person in this image do for a living?",
        "Which part does this person play?",
    ),
    "character_story": (
        "What is this person known for?",
        "For what is the person in this image famous?",
        "What made this person famous?",
    ),
    "style": (
        "In which style is this image made?",
        "What kind of artwork is this image?",
        "Which art style does this image show?",
    ),
    "artist": (
        "Who made this artwork?",
        "Which artist is behind this image?",
        "What is the name of the artist of this image?",
    ),
    "genre": (
        "Which genre does this artwork belong to?",
        "What is the genre of this image?",
        "To what genre would you assign this image?",
    ),
    "title": (
        "What is this artwork called?",
        "Which title does this image have?",
        "What is the name of this artwork?",
    ),
}
YES_NO: dict[str, tuple[str, ...]] = {
    "existence": (
        "Is there {a} in this image?",
        "Does this image contain {a}?",
        "Do you see {a} in this image?",
    ),
    "color": (
        "Is the {k} {v}?",
        "Does the {k} in this image have a {v} color?",
        "Is {v} the color of the {k} in this image?",
    ),
    "size": (
        "Is the {k} {v}?",
        "Does the {k} in this image have a {v} size?",
        "Would you call the {k} in this image {v}?",
    ),
    "pattern": (
        "Is the {k} {v}?",
        "Does the {k} in this image have a {v} pattern?",
        "Is {v} the pattern of the {k} in this image?",
    ),
    "position": (
        "Is the {k} {at} of the image?",
        "Does the {k} appear {at} of this image?",
        "Do you see the {k} {at} of this image?",
    ),
    "relation": (
        "Is the {k} {to} the {b}?",
        "Does the {k} in this image lie {to} the {b}?",
        "Do you see the {k} {to} the {b}?",
    ),
    "count": (
        "{Are} there {n} {ks} in this image?",
        "Does this image contain {n} {ks}?",
        "Do you see {n} {ks} in this image?",
    ),
    "scene": (
        "Is this image set {at}?",
        "Does this image take place {at}?",
        "Is {a} the setting of this image?",
    ),
    "light": (
        "Is it {v} in this image?",
        "Was this image taken at {v}?",
        "Does this image take place at {v}?",
    ),
    "text": (
        'Does the sign say "{v}"?',
        'Is "{v}" the word on the sign in this image?',
        'Do you read "{v}" in this image?',
    ),
    "landmark": (
        "Is this landmark {v}?",
        "Does this image show {v}?",
        "Is the building in this image called {v}?",
    ),
    "place": (
        "Is this landmark in {v}?",
        "Would you visit {v} to see this landmark?",
        "Is {v} the location of the building in this image?",
    ),
    "landmark_story": (
        "Was it the purpose of this landmark to {v}?",
        "Did people put this landmark up to {v}?",
        "Is the building in this image there to {v}?",
    ),
    "character": (
        "Is this person {v}?",
        "Does this image show {v}?",
        "Is the person in this image called {v}?",
    ),
    "role": (
        "Is this person {a}?",
        "Does the person in this image work as {a}?",
        "Does this person play {a}?",
    ),
    "character_story": (
        "Is this person known for {v}?",
        "Did {v} make this person famous?",
        "Is the person in this image remembered for {v}?",
    ),
    "style": (
        "Is this image {a}?",
        "Does this image have the style of {a}?",
        "Would you call this image {a}?",
    ),
    "artist": (
        "Is this artwork by {v}?",
        "Did {v} make this image?",
        "Is {v} the artist of this image?",
    ),
    "genre": (
        "Is the genre of this artwork {v}?",
        "Does this image belong to the {v} genre?",
        "Would you call this artwork {v}?",
    ),
    "title": (
        "Is this artwork called {v}?",
        "Does this image have the title {v}?",
        "Is {v} the name of this image?",
    ),
}
CHOICE: dict[str, tuple[str, ...]] = {
    **OPEN,
    "existence": (
        "Which of these is in the image?",
        "Which of these objects do you see?",
        "What can be found in this image?",
    ),
}
SAID = {
    "existence": "{at} is {a}", "color": "the {k} is {v}", "size": "the {k} is {v}",
    "pattern": "the {k} is {v}", "position": "the {k} is {at}",
    "relation": "the {k} is {to} the {b}", "count": "there {are} {n} {ks}",
    "scene": "the scene is {at}", "light": "it is {v}", "text": 'the sign says "{v}"',
    "landmark": "the building is {v}", "place": "the building is in {v}",
    "landmark_story": "the building was built to {v}", "character": "the person is {v}",
    "role": "the person is {a}", "character_story": "the person is known for {v}",
    "style": "the picture is {a}", "artist": "the artist is {v}", "genre": "the genre is {v}",
    "title": "the title is {v}",
}  # fmt: skip
"""The answer to an open question, said in a sentence."""
AT = {
    "top left": "in the top left", "top": "at the top", "top right": "in the top right",
    "left": "on the left", "center": "in the center", "right": "on the right",
    "bottom left": "in the bottom left", "bottom": "at the bottom",
    "bottom right": "in the bottom right",
    "meadow": "in a meadow", "beach": "on a beach", "desert": "in a desert",
    "mountain": "near a mountain", "city": "in a city", "forest": "in a forest",
    "ocean": "by the ocean", "room": "in a room",
}  # fmt: skip
TO = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}
