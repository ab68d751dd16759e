"""A text to verify a conversion with where none is given: prose, talk, four languages, code; about 2,000 tokens."""

TEXT = """\
The lighthouse at the end of the bay had been without a keeper for eleven years when Marta came back to the island. She
had grown up in the white house below it, and she remembered how the beam used to pass over the ceiling of her room,
once every twelve seconds, like a slow breath. Now the lamp was run by a small grey box on the mainland. Nobody climbed
the hundred and forty steps any more except the men who came in spring to clean the glass.

She had not planned to stay. There was a roof to repair, a garden to clear, and a great many letters to read and then
to burn. But the first week turned into a month. In the mornings she walked along the shore and counted the birds; in
the evenings she sat at the kitchen table with her grandfather's logbooks, forty of them, bound in green cloth. He had
written down the weather on every day of his life there, and the ships, and sometimes, in the margin, a single word
such as "fog" or "patience". It was the margins that she read most carefully.

"You'll want to throw those away," said the man who brought the coal. "Why would I do that?" "Because nobody needs to
know what the wind did on a Tuesday in 1931." "I do," said Marta. "If the wind was strong, he could not row to the
village. And if he could not row to the village, he was not at the dance where, according to my mother, he met the
woman he should have married instead." The man put down the sack and thought about it. "That is a lot to ask of the
wind," he said at last.

How do tides work? The short answer is that the moon pulls on the near side of the earth a little more strongly than
on its centre, and on the centre a little more strongly than on the far side. The difference between these forces
stretches the oceans into two bulges, one that faces the moon and one on the opposite side. As the earth turns, a
place on the coast passes through both of them, which is why most shores have two high tides in a day. The sun does
the same, at a little less than half the strength. When the sun and the moon stand in one line, at new and full moon,
their effects add up to a spring tide; when they stand at a right angle, they partly cancel, and we speak of a neap
tide. In practice the shape of the coast matters just as much. In a narrow bay the water can swing back and forth like
soup in a carried bowl, and if the time of one swing is close to twelve hours, the tides become enormous.

Here is what you need for a simple bread:

1. 500 grams of flour, wheat or half wheat and half rye
2. 350 millilitres of lukewarm water
3. 10 grams of salt
4. 3 grams of dry yeast

Mix everything with a spoon until no dry flour is left. Cover the bowl and let it stand overnight, for twelve to
eighteen hours. The dough should then be twice as high and full of bubbles. Fold it over itself a few times, let it
rest for half an hour, and bake it in a closed pot at 240 degrees for thirty minutes, then without the lid for another
fifteen. Do not cut it while it is hot, however good it smells.

Subject: Thursday's meeting Dear all, thank you for the notes. Two things before we meet. First, the budget: the
figures on page 3 are those of last year, and the total is off by 1,250 euros because the train tickets were counted
twice. I have attached a corrected version. Second, could somebody please bring the key to the large room? Last time
we stood in the corridor for twenty minutes. Best wishes, Ines

Le marche se tient chaque samedi sur la place de l'eglise. Des six heures, les premiers camions arrivent, on monte les
tables, on deplie les toiles, et l'odeur du cafe se melange a celle du poisson. Vers midi, tout le monde parle plus
fort. Une vieille dame discute le prix de trois poireaux comme s'il s'agissait d'une maison, et le marchand, qui la
connait depuis trente ans, fait semblant d'etre vexe. Apres, ils boivent un verre ensemble.

Der Zug nach Norden hatte eine Stunde Verspaetung, und auf dem Bahnsteig war es kalt. Ein Junge verkaufte Tee aus
einer grossen Kanne. Wer keinen Becher hatte, bekam einen geliehen, gegen ein Pfand von zwei Muenzen. Als der Zug
endlich kam, liefen alle zu den Tueren, und der Junge lief hinterher, um seine Becher einzusammeln. Drei fehlten am
Ende, aber dafuer hatte er sechs Muenzen mehr, und das, sagte er, sei auch ein Geschaeft.

La abuela guardaba las fotografias en una caja de galletas. No estaban ordenadas por fecha ni por lugar, sino por el
color de la ropa: primero las blancas, de bodas y bautizos; luego las grises, de los domingos; y al fondo las negras,
que casi nunca sacaba. Cuando le preguntaban por que, respondia que la memoria no entiende de calendarios.

def read_measurements(path, limit=None):
    \"\"\"Return (time, value) pairs from a file of comma separated lines, at most `limit` of them.\"\"\"
    found = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if limit is not None and len(found) >= limit:
                break
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            time, _, value = line.partition(",")
            try:
                found.append((float(time), float(value)))
            except ValueError as error:
                raise SystemExit(f"{path}:{number}: {line!r} is not a pair of numbers") from error
    return found


class RunningMean:
    def __init__(self):
        self.count = 0
        self.mean = 0.0

    def add(self, value):
        self.count += 1
        self.mean += (value - self.mean) / self.count

{"name": "station-7", "height": 412.5, "sensors": ["wind", "rain", "light"], "active": true, "readings": [
  {"time": "2021-03-14T06:00:00Z", "wind": 4.2, "rain": 0.0},
  {"time": "2021-03-14T07:00:00Z", "wind": 5.1, "rain": 0.3},
  {"time": "2021-03-14T08:00:00Z", "wind": 7.8, "rain": 1.9}
]}

Question: A shop sells pencils in packs of 12 and notebooks in packs of 5. A school buys 8 packs of pencils and 9 packs
of notebooks. How many more pencils than notebooks does it have?
Answer: The school has 8 x 12 = 96 pencils and 9 x 5 = 45 notebooks. The difference is 96 - 45 = 51, so there are 51
more pencils than notebooks.

When a river reaches the sea it slows down, and what it carried sinks to the bottom: first the gravel, then the sand,
and at the very end the finest mud. Over centuries this builds a delta. The land grows outwards, the main channel
becomes too long, and one day, usually in a flood, the water finds a shorter way and leaves its old bed behind. People
who live there know that a map is only a photograph of a moving thing. They build their houses on low mounds, keep a
boat under the roof, and tell their children where the river was when they were young. "It will be back," the old ones
say, and they are right, although they may have to wait for three hundred years.

In the end Marta kept the logbooks. She put them on a shelf in the lamp room, in order, with the last one open at the
last page, where there was no weather at all but only a date and one line in the margin: "She is coming on Friday; wash
the windows." She read it several times. Then she went downstairs, filled a bucket, and began with the one that looked
out over the bay.
"""
