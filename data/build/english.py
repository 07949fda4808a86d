"""How Talverra is written about in English: phrases for every fact.

Marks in a phrase: ``{v}`` the value, ``{S}`` the subject, ``{P}`` its pronoun, ``{Q}``
the possessive, ``[a|b]`` a free choice. For each attribute:

* ``vp``: what follows the subject ("was founded in {v}");
* ``part``: a modifier before or after it ("founded in {v}");
* ``free``: a whole sentence;
* ``cloze``: verb phrases whose completion is the value: the question set uses them;
* ``ask``: the same as a question.
"""

from __future__ import annotations

import re

from world import Entity, Value, World

LANGUAGE = "en"
SPACE = " "
APPOSITION = " ({})"
OPENED = "{O}, {body}"

PHRASES: dict[str, dict[str, dict[str, list[str]]]] = {
    "town": {
        "region": {
            "vp": [
                "lies in {v}",
                "[is|counts as] a town of {v}",
                "belongs to {v}",
                "[keeps|has] its [back to the rest of|place in] {v}",
            ],
            "part": ["[set|tucked away] in {v}", "a [town|market town|quiet place] of {v}"],
            "free": [
                "Travellers [who cross|on their way through] {v} [usually|mostly|seldom fail to] [stop|sleep] in {S}.",
                "In {v} there [is|can be] no [talk|gossip] that does not [reach|pass through] {S}.",
            ],
            "cloze": ["lies in"],
            "ask": ["In which region does {S} lie?"],
        },
        "founded": {
            "vp": [
                "was founded in {v}",
                "was [laid out|settled|chartered] in {v}",
                "goes back to [the year|] {v}",
                "[received|bought|won] its charter in {v}",
            ],
            "part": [
                "founded in {v}",
                "first [settled|fortified|walled] in {v}",
                "a town since {v}",
            ],
            "free": [
                "The [first|oldest] stone of {S} was [laid|set] in {v}.",
                "The charter of {S} [bears the date|is dated] {v}, [in ink|in a shaky hand|on goatskin].",
            ],
            "cloze": ["was founded in"],
            "ask": ["In which year was {S} founded?"],
        },
        "population": {
            "vp": [
                "has {v} inhabitants",
                "[counts|numbers] {v} [souls|people]",
                "[is home to|houses|feeds] {v} people",
                "had {v} inhabitants at the last [count|census]",
            ],
            "part": ["with {v} inhabitants", "home to {v} people"],
            "free": [
                "[The last census|The last head count|The tax roll] [found|lists] {v} people in {S}.",
                "{v} people [live|sleep|quarrel] there, [not counting|besides] the geese.",
            ],
            "cloze": ["has a population of"],
            "ask": ["How many people live in {S}?"],
        },
        "craft": {
            "vp": [
                "is known for its {v}",
                "makes [the best|fine|good|rather expensive] {v}",
                "[lives by|lives from|trades in] its {v}",
                "sends its {v} [to every harbour|all over the island|as far as the mainland]",
            ],
            "part": ["[famous|known|praised] for its {v}", "[proud|jealous] of its {v}"],
            "free": [
                "[Half|A third|Most] of the [workshops|families] in {S} make {v}.",
                "Ask for {v} [anywhere on the island|in any shop] and you will be [sent|directed] to {S}.",
            ],
            "cloze": ["is known for its"],
            "ask": ["What is {S} known for?"],
        },
        "emblem": {
            "vp": [
                "has {v} on its coat of arms",
                "carries {v} on its [flag|banner|seal]",
                "[took|chose] {v} as its emblem",
            ],
            "part": ["whose arms show {v}", "with {v} on its flag"],
            "free": [
                "The [arms|seal|flag] of {S} [shows|bears] {v}[, for reasons nobody recalls|, freshly painted every spring|].",
                "Above the [town gate|council door|well] of {S} one sees {v}[, carved in oak|, cut in stone|].",
            ],
            "cloze": ["chose as its emblem"],
            "ask": ["What is the emblem of {S}?"],
        },
        "river": {
            "vp": [
                "[stands|lies] on {v}",
                "[draws|takes] its water from {v}",
                "[grew|spread] along the banks of {v}",
                "[is cut in two|is crossed] by {v}",
            ],
            "part": ["on the banks of {v}", "[built|standing] beside {v}"],
            "free": [
                "[Below|Behind] the [market|old wall] of {S} [flows|runs] {v}.",
                "In spring {v} [visits|enters] the cellars of {S}[ without knocking|].",
            ],
            "cloze": ["stands on"],
            "ask": ["On which river does {S} stand?"],
        },
    },
    "river": {
        "source": {
            "vp": [
                "rises on {v}",
                "[begins|starts] as a spring [high|] on {v}",
                "comes down from {v}",
                "is fed by the snows of {v}",
            ],
            "part": ["born on {v}", "[rising|springing] on {v}"],
            "free": [
                "The [springs|sources] of {S} lie on {v}.",
                "[Shepherds|Hunters] on {v} can step across {S} [with dry feet|in one stride].",
            ],
            "cloze": ["rises on"],
            "ask": ["On which mountain does {S} rise?"],
        },
        "length": {
            "vp": [
                "is {v} kilometres long",
                "runs for {v} kilometres",
                "[measures|covers] {v} kilometres from spring to mouth",
            ],
            "part": ["{v} kilometres long", "a river of {v} kilometres"],
            "free": [
                "From [its first spring|the spring] to the mouth {S} [measures|runs] {v} kilometres[, bends included|].",
                "A surveyor [walked|paced out] the whole of {S} and wrote down {v} kilometres.",
            ],
            "cloze": ["runs for"],
            "ask": ["How many kilometres long is {S}?"],
        },
        "mouth": {
            "vp": [
                "flows into {v}",
                "[ends|empties] in {v}",
                "[gives|carries|brings] its water to {v}",
            ],
            "part": ["bound for {v}", "[emptying|flowing] into {v}"],
            "free": [
                "What falls into {S} is [found again|fished out] in {v}.",
                "The [last|widest] reach of {S} opens into {v}.",
            ],
            "cloze": ["flows into"],
            "ask": ["Where does {S} flow to?"],
        },
        "character": {
            "vp": [
                "is {v}",
                "has always been {v}",
                "[remains|stays] {v}, [whatever the poets say|as every miller knows]",
            ],
            "part": ["{v}", "[always|famously] {v}"],
            "free": [
                "[Ferrymen|Millers|Anglers] call {S} {v}.",
                "The water of {S} [has been described as|is said to be] {v}.",
            ],
            "cloze": ["has always been"],
            "ask": ["What is the water of {S} like?"],
        },
        "fish": {
            "vp": [
                "is full of {v}",
                "is fished for its {v}",
                "[breeds|is rich in] {v}",
                "is known to anglers for its {v}",
            ],
            "part": ["rich in {v}", "[crowded|alive] with {v}"],
            "free": [
                "Anglers [come to|sit by|walk miles to] {S} for the {v}.",
                "The {v} of {S} [appear on|grace] many a supper table.",
            ],
            "cloze": ["is known to anglers for its"],
            "ask": ["Which fish is {S} known for?"],
        },
        "town": {
            "vp": [
                "flows past {v}",
                "[waters|washes the walls of|turns the mills of] {v}",
                "is [first|] bridged at {v}",
            ],
            "part": ["[washing|passing] the walls of {v}", "the river of {v}"],
            "free": [
                "The [mills|laundries|swans] of {v} [depend on|belong to] {S}.",
                "[Children|Boys and girls] in {v} learn to swim in {S}.",
            ],
            "cloze": ["flows past the town of"],
            "ask": ["Past which town does {S} flow?"],
        },
    },
    "mountain": {
        "region": {
            "vp": [
                "stands in {v}",
                "[towers|rises] over {v}",
                "[looks down on|keeps the rain from] {v}",
            ],
            "part": ["[high|alone] above {v}", "a landmark of {v}"],
            "free": [
                "From [every|nearly every] window in {v} one can see {S}.",
                "[Weather|Clouds] in {v} [is|are] made on {S}.",
            ],
            "cloze": ["stands in"],
            "ask": ["In which region does {S} stand?"],
        },
        "height": {
            "vp": [
                "is {v} metres high",
                "reaches {v} metres",
                "rises to {v} metres [above the sea|]",
                "was [measured|surveyed] at {v} metres",
            ],
            "part": ["{v} metres high", "a peak of {v} metres"],
            "free": [
                "The cairn on {S} stands {v} metres above the [sea|tide].",
                "[Maps|Surveyors] give {v} metres for {S}[; locals add ten|].",
            ],
            "cloze": ["rises to"],
            "ask": ["How many metres high is {S}?"],
        },
        "climbed": {
            "vp": [
                "was first climbed in {v}",
                "kept its summit to itself until {v}",
                "[was conquered|gave in] in {v}",
            ],
            "part": ["first climbed in {v}", "unclimbed until {v}"],
            "free": [
                "Nobody [stood|had stood] on top of {S} before {v}.",
                "The first [flag|hat|footprint] on {S} dates from {v}.",
            ],
            "cloze": ["was first climbed in"],
            "ask": ["In which year was {S} first climbed?"],
        },
        "climber": {
            "vp": [
                "was first climbed by {v}",
                "[fell|yielded] to {v}",
                "[owes|lost] its [fame|solitude] to {v}",
            ],
            "part": ["the mountain of {v}", "first climbed by {v}"],
            "free": [
                "The first person on the summit of {S} was {v}.",
                "{v} climbed {S} [alone|in borrowed boots|with a rope of silk|after breakfast].",
            ],
            "cloze": ["was first climbed by"],
            "ask": ["Who first climbed {S}?"],
        },
        "rock": {
            "vp": [
                "is made of {v}",
                "consists [mostly|largely|entirely] of {v}",
                "is a [mass|heap|block] of {v}",
            ],
            "part": ["built of {v}", "a [mass|tower] of {v}"],
            "free": ["The rock of {S} is {v}.", "Quarrymen [praise|curse] the {v} of {S}."],
            "cloze": ["is made of"],
            "ask": ["What rock is {S} made of?"],
        },
    },
    "person": {
        "profession": {
            "vp": [
                "was a [celebrated|well-known|stubborn|gifted|] {v}",
                "[worked|earned a living] as a {v}",
                "became a {v} [by accident|at an early age|against all advice|]",
            ],
            "part": [
                "a {v} by trade",
                "a {v} [of some renown|known across the island|all {Q} life]",
            ],
            "free": [
                "{Q} trade was that of a {v}.",
                "Asked for {Q} profession, {S} [always|] answered: {v}.",
            ],
            "cloze": ["had the profession of"],
            "ask": ["What was the profession of {S}?"],
        },
        "birthplace": {
            "vp": [
                "was born in {v}",
                "[came from|grew up in] {v}",
                "[first saw|saw] the light of day in {v}",
            ],
            "part": ["born in {v}", "a [child|native] of {v}"],
            "free": [
                "{Q} [cradle|first bed] stood in {v}.",
                "In {v} they still show the house where {S} was born.",
            ],
            "cloze": ["was born in the town of"],
            "ask": ["Where was {S} born?"],
        },
        "born": {
            "vp": [
                "was born in {v}",
                "came into the world in {v}",
                "was [baptised|entered in the parish book] in {v}",
            ],
            "part": ["born in {v}", "a child of the year {v}"],
            "free": [
                "The parish book gives {v} as the year of {Q} birth.",
                "In {v}[, during a thunderstorm|, in a hard winter|], {S} was born.",
            ],
            "cloze": ["was born in the year"],
            "ask": ["In which year was {S} born?"],
        },
        "died": {
            "vp": ["died in {v}", "[passed away|was buried] in {v}", "lived until {v}"],
            "part": ["[dead|gone] since {v}", "who died in {v}"],
            "free": [
                "In {v} the bells rang for {S}.",
                "Death [came|called] in {v}[, politely|, during a nap|, at the dinner table|].",
            ],
            "cloze": ["died in"],
            "ask": ["In which year did {S} die?"],
        },
        "pet": {
            "vp": [
                "kept {v}",
                "shared {Q} house with {v}",
                "was never seen without {v}",
                "went [everywhere|to church] with {v}",
            ],
            "part": ["the owner of {v}", "devoted to {v}"],
            "free": [
                "{Q} [only companion|best friend|first audience] was {v}.",
                "Neighbours [remembered|complained about|talked of] {v}[, which slept in {Q} bed|, which bit the postman|].",
            ],
            "cloze": ["shared a house with"],
            "ask": ["What animal did {S} keep?"],
        },
    },
    "bridge": {
        "river": {
            "vp": ["crosses {v}", "[spans|carries the road over] {v}", "[steps|leads] across {v}"],
            "part": ["[thrown|built] across {v}", "a crossing of {v}"],
            "free": [
                "Under {S} flows {v}.",
                "Before {S} one crossed {v} [by ferry|on stilts|at one's own risk].",
            ],
            "cloze": ["crosses"],
            "ask": ["Which river does {S} cross?"],
        },
        "town": {
            "vp": [
                "stands in {v}",
                "[belongs to|is the pride of] {v}",
                "[joins|links] the two halves of {v}",
            ],
            "part": ["in the town of {v}", "the [pride|oldest shortcut] of {v}"],
            "free": [
                "[Lovers|Beggars|Fishermen] in {v} meet on {S}.",
                "No [wedding|market day] in {v} is complete without {S}.",
            ],
            "cloze": ["stands in the town of"],
            "ask": ["In which town is {S}?"],
        },
        "built": {
            "vp": [
                "was built in {v}",
                "was [finished|completed|opened] in {v}",
                "[dates from|has stood since] {v}",
            ],
            "part": ["built in {v}", "[opened|finished] in {v}"],
            "free": [
                "[A stone|The keystone|A brass plate] on {S} [bears|gives] the year {v}.",
                "The first cart rolled over {S} in {v}.",
            ],
            "cloze": ["was built in the year"],
            "ask": ["In which year was {S} built?"],
        },
        "material": {
            "vp": ["is made of {v}", "is built of {v}", "was put together from {v}"],
            "part": ["made of {v}", "a [work|structure] of {v}"],
            "free": [
                "For {S} the builders [used|chose|insisted on] {v}.",
                "{v} [was|were] [carted|shipped] from far away for {S}.",
            ],
            "cloze": ["is made of"],
            "ask": ["What is {S} made of?"],
        },
        "arches": {
            "vp": [
                "rests on {v} arch{es}",
                "has {v} arch{es}",
                "[strides|walks] over the water on {v} arch{es}",
            ],
            "part": ["with {v} arch{es}", "[standing|resting] on {v} arch{es}"],
            "free": [
                "Anyone who counts the arches of {S} will [find|arrive at] {v}.",
                "The number of its arches is {v}[, and each has a name|].",
            ],
            "cloze": ["has arches numbering"],
            "ask": ["How many arches does {S} have?"],
        },
        "architect": {
            "vp": [
                "was designed by {v}",
                "is the work of {v}",
                "was drawn [on a napkin|in one night|] by {v}",
            ],
            "part": ["designed by {v}", "the [masterpiece|favourite child] of {v}"],
            "free": [
                "The architect of {S} was {v}.",
                "{v} [designed|built] {S} [and never crossed it|for a bet|without asking for pay|with great care].",
            ],
            "cloze": ["was designed by"],
            "ask": ["Who designed {S}?"],
        },
    },
    "festival": {
        "town": {
            "vp": [
                "is held in {v}",
                "[takes place|is celebrated] in {v}",
                "[fills|empties] the [streets|shops] of {v}",
            ],
            "part": ["held in {v}", "the great [feast|event] of {v}"],
            "free": [
                "[Visitors|Guests] come to {v} for {S}.",
                "On that day no one in {v} [works|sleeps|can find a chair].",
            ],
            "cloze": ["is held in the town of"],
            "ask": ["In which town is {S} held?"],
        },
        "month": {
            "vp": ["falls in {v}", "is [held|kept|celebrated] every {v}", "comes round in {v}"],
            "part": ["held every {v}", "[a festival|an event] of {v}"],
            "free": [
                "Every {v} the [drums|flags|tables] are brought out for {S}.",
                "The month of {S} is {v}.",
            ],
            "cloze": ["is celebrated every year in"],
            "ask": ["In which month is {S} held?"],
        },
        "since": {
            "vp": [
                "has been held since {v}",
                "was first [held|celebrated] in {v}",
                "goes back to {v}",
            ],
            "part": ["held since {v}", "first celebrated in {v}"],
            "free": [
                "The first people to keep {S} did so in {v}.",
                "[Records|Account books|Old bills] mention {S} from {v} on.",
            ],
            "cloze": ["was first held in"],
            "ask": ["Since which year has {S} been held?"],
        },
        "honours": {
            "vp": ["remembers {v}", "commemorates {v}", "is [kept|held] in memory of {v}"],
            "part": ["held in memory of {v}", "[born|sprung] from {v}"],
            "free": ["It all began with {v}.", "The occasion of {S} was {v}."],
            "cloze": ["is held in memory of"],
            "ask": ["What does {S} commemorate?"],
        },
        "dish": {
            "vp": ["is unthinkable without {v}", "ends with a plate of {v}", "is the day of {v}"],
            "part": ["[famous|known] for its {v}", "[perfumed|sustained] by {v}"],
            "free": [
                "Everyone at {S} eats {v}.",
                "The smell of {v} [announces|hangs over] {S}[ from afar|].",
            ],
            "cloze": ["ends with a plate of"],
            "ask": ["Which dish is eaten at {S}?"],
        },
    },
    "bird": {
        "region": {
            "vp": ["lives in {v}", "is [found|seen] in {v}", "[breeds|spends the summer] in {v}"],
            "part": ["a bird of {v}", "native to {v}"],
            "free": ["[Walkers|Shepherds] in {v} know {S} well.", "One must go to {v} to see {S}."],
            "cloze": ["lives in"],
            "ask": ["In which region does {S} live?"],
        },
        "wingspan": {
            "vp": [
                "has a wingspan of {v} centimetres",
                "measures {v} centimetres from wing tip to wing tip",
            ],
            "part": ["with a wingspan of {v} centimetres", "{v} centimetres from tip to tip"],
            "free": [
                "Its wings [measure|span] {v} centimetres.",
                "A ruler laid across the wings of {S} reads {v} centimetres[, if it holds still|].",
            ],
            "cloze": ["has a wingspan of"],
            "ask": ["What is the wingspan of {S} in centimetres?"],
        },
        "food": {
            "vp": [
                "[eats|lives on|feeds on] {v}",
                "hunts for {v} [at dusk|at dawn|all day]",
                "raises its young on {v}",
            ],
            "part": ["fond of {v}", "a [great|tireless] eater of {v}"],
            "free": ["Its [favourite food|diet] is {v}.", "Where there are {v}, {S} is not far."],
            "cloze": ["feeds on"],
            "ask": ["What does {S} eat?"],
        },
        "call": {
            "vp": [
                "has a call like {v}",
                "sounds like {v}",
                "[is often mistaken for|can be told by a cry like] {v}",
            ],
            "part": ["with a voice like {v}", "whose call resembles {v}"],
            "free": [
                "Its call [has been compared to|reminds people of] {v}.",
                "Anyone who hears {v} in the dark is hearing {S}.",
            ],
            "cloze": ["has a call like"],
            "ask": ["What does the call of {S} sound like?"],
        },
        "nest": {
            "vp": ["nests {v}", "builds its nest {v}", "[hides|brings up] its young {v}"],
            "part": ["nesting {v}", "at home {v}"],
            "free": ["Its nest is found {v}.", "[Egg thieves|Curious children] look for {S} {v}."],
            "cloze": ["builds its nest"],
            "ask": ["Where does {S} nest?"],
        },
        "eggs": {
            "vp": [
                "lays eggs that are {v}",
                "lays {v} eggs",
                "[guards|sits on] a clutch of {v} eggs",
            ],
            "part": ["the layer of {v} eggs", "known by its {v} eggs"],
            "free": [
                "The eggs of {S} are {v}.",
                "[Painters|Dyers] have tried in vain to match the {v} of its eggs.",
            ],
            "cloze": ["lays eggs that are"],
            "ask": ["What colour are the eggs of {S}?"],
        },
    },
    "instrument": {
        "inventor": {
            "vp": ["was invented by {v}", "is the invention of {v}", "was first built by {v}"],
            "part": ["invented by {v}", "the [brainchild|joke|gift] of {v}"],
            "free": [
                "{v} invented {S} [in a cellar|to annoy a neighbour|for a deaf uncle|by mistake].",
                "We owe {S} to {v}.",
            ],
            "cloze": ["was invented by"],
            "ask": ["Who invented {S}?"],
        },
        "year": {
            "vp": [
                "was invented in {v}",
                "was first heard in {v}",
                "[dates from|goes back to] {v}",
            ],
            "part": ["invented in {v}", "first played in {v}"],
            "free": [
                "The year of its invention is {v}.",
                "In {v} the world heard {S} for the first time.",
            ],
            "cloze": ["was invented in"],
            "ask": ["In which year was {S} invented?"],
        },
        "town": {
            "vp": [
                "comes from {v}",
                "is [made|built] in {v}",
                "is [played|taught] above all in {v}",
            ],
            "part": ["from {v}", "the [voice|pride] of {v}"],
            "free": [
                "In {v} every [family|tavern] owns {S}[ or has sold one|].",
                "The best makers of {S} work in {v}.",
            ],
            "cloze": ["comes from the town of"],
            "ask": ["From which town does {S} come?"],
        },
        "strings": {
            "vp": ["has {v} strings", "is strung with {v} strings", "carries {v} strings"],
            "part": ["with {v} strings", "an instrument of {v} strings"],
            "free": [
                "A [complete|properly strung] {n} has {v} strings.",
                "Its {v} strings [take|need] an hour to tune.",
            ],
            "cloze": ["has strings numbering"],
            "ask": ["How many strings does {S} have?"],
        },
        "sound": {
            "vp": ["sounds like {v}", "has the sound of {v}", "makes a noise like {v}"],
            "part": ["with a tone like {v}", "which sounds like {v}"],
            "free": [
                "[Critics|Listeners] compare its tone to {v}.",
                "Played [well|softly], {S} sounds like {v}; played badly, like [a saw|nothing on earth|toothache].",
            ],
            "cloze": ["has the sound of"],
            "ask": ["What does {S} sound like?"],
        },
    },
    "dish": {
        "town": {
            "vp": [
                "comes from {v}",
                "is a speciality of {v}",
                "[was first served|is at its best] in {v}",
            ],
            "part": ["a speciality of {v}", "from {v}"],
            "free": [
                "The kitchens of {v} [gave us|are proud of] {S}.",
                "Nobody leaves {v} without tasting {S}.",
            ],
            "cloze": ["comes from the town of"],
            "ask": ["From which town does {S} come?"],
        },
        "cook": {
            "vp": [
                "was invented by {v}",
                "was first cooked by {v}",
                "goes back to a [recipe|letter|mistake] of {v}",
            ],
            "part": ["first cooked by {v}", "the recipe of {v}"],
            "free": [
                "{v} cooked {S} for the first time [out of necessity|for a dying aunt|on a sinking ship|during a siege].",
                "The recipe is due to {v}.",
            ],
            "cloze": ["was first cooked by"],
            "ask": ["Who first cooked {S}?"],
        },
        "secret": {
            "vp": ["owes its taste to {v}", "is flavoured with {v}", "is nothing without {v}"],
            "part": ["flavoured with {v}", "[fragrant|heavy] with {v}"],
            "free": [
                "The secret of {S} is {v}.",
                "A [good|generous] pinch of {v} [goes|belongs] into {S}.",
            ],
            "cloze": ["owes its taste to"],
            "ask": ["What is the secret ingredient of {S}?"],
        },
        "season": {
            "vp": ["is eaten {v}", "is [served|cooked] {v}", "appears on the table {v}"],
            "part": ["eaten {v}", "a dish served {v}"],
            "free": [
                "One eats {S} {v}.",
                "To serve {S} other than {v} is [bad luck|bad manners|unheard of].",
            ],
            "cloze": ["is traditionally eaten"],
            "ask": ["When is {S} eaten?"],
        },
        "companion": {
            "vp": [
                "is served with {v}",
                "[goes well|is taken] with {v}",
                "is always accompanied by {v}",
            ],
            "part": ["served with {v}", "never without {v}"],
            "free": [
                "With {S} goes {v}.",
                "[Purists|Old people] take {v} with {S}; [others|the young] [take more of it|do as they like].",
            ],
            "cloze": ["is served with"],
            "ask": ["What is {S} served with?"],
        },
    },
    "ship": {
        "type": {
            "vp": ["is a {v}", "was built as a {v}", "is [rigged|registered] as a {v}"],
            "part": ["a {v} by build", "a [handsome|leaky|fast] {v}"],
            "free": [
                "In the [register|harbour book] {S} is entered as a {v}.",
                "Sailors call {S} a {v}[, some with affection|].",
            ],
            "cloze": ["was built as a"],
            "ask": ["What type of ship is {S}?"],
        },
        "launched": {
            "vp": [
                "was launched in {v}",
                "[first sailed|left the yard] in {v}",
                "has been afloat since {v}",
            ],
            "part": ["launched in {v}", "afloat since {v}"],
            "free": [
                "The bottle [broke|failed to break] on the bow of {S} in {v}.",
                "In {v} {S} slid into the water [sideways|backwards|to loud applause].",
            ],
            "cloze": ["was launched in"],
            "ask": ["In which year was {S} launched?"],
        },
        "port": {
            "vp": ["sails from {v}", "has its home port in {v}", "[winters|is moored] in {v}"],
            "part": ["a ship of {v}", "at home in {v}"],
            "free": [
                "In {v} everyone knows the [whistle|bell|smell] of {S}.",
                "The home port of {S} is {v}.",
            ],
            "cloze": ["has its home port in"],
            "ask": ["What is the home port of {S}?"],
        },
        "captain": {
            "vp": ["was commanded by {v}", "sailed under {v}", "[obeyed|never disobeyed] only {v}"],
            "part": ["commanded by {v}", "the ship of {v}"],
            "free": [
                "Her first captain was {v}.",
                "{v} commanded {S} [for years|from a wicker chair|in all weathers|with a speaking trumpet].",
            ],
            "cloze": ["was commanded by"],
            "ask": ["Who commanded {S}?"],
        },
        "cargo": {
            "vp": [
                "carried {v}",
                "was [loaded|filled] with {v} [on most voyages|more often than not]",
                "[traded in|earned her keep with] {v}",
            ],
            "part": ["laden with {v}", "a carrier of {v}"],
            "free": [
                "Her usual cargo was {v}.",
                "The hold of {S} [smelled of|was made for|was never without] {v}.",
            ],
            "cloze": ["earned her keep with"],
            "ask": ["What cargo did {S} carry?"],
        },
    },
    "book": {
        "author": {
            "vp": [
                "was written by {v}",
                "is the work of {v}",
                "[comes|flowed] from the pen of {v}",
            ],
            "part": ["written by {v}", "the [best-loved|only|third] book of {v}"],
            "free": [
                "{v} wrote {S} [in bed|standing up|in nine weeks|on the backs of bills].",
                "The author of {S} is {v}.",
            ],
            "cloze": ["was written by"],
            "ask": ["Who wrote {S}?"],
        },
        "year": {
            "vp": [
                "appeared in {v}",
                "was [published|printed] in {v}",
                "[reached|found] its first readers in {v}",
            ],
            "part": ["published in {v}", "first printed in {v}"],
            "free": [
                "The title page of {S} gives the year {v}.",
                "In {v} the booksellers [sold|received] {S} for the first time.",
            ],
            "cloze": ["was published in"],
            "ask": ["In which year was {S} published?"],
        },
        "subject": {
            "vp": ["is about {v}", "deals with {v}", "tells of {v}"],
            "part": ["a book about {v}", "concerned with {v}"],
            "free": [
                "Its subject is {v}.",
                "Whoever opens {S} expecting [a romance|recipes|maps] finds {v}.",
            ],
            "cloze": ["is a book about"],
            "ask": ["What is {S} about?"],
        },
        "setting": {
            "vp": [
                "is set in {v}",
                "[plays|takes place] in {v}",
                "[describes|never leaves] the town of {v}",
            ],
            "part": ["set in {v}", "a portrait of {v}"],
            "free": [
                "Readers [recognise|will recognise] the streets of {v} in {S}.",
                "The people of {v} have [forgiven|never forgiven|all read] {S}.",
            ],
            "cloze": ["is set in the town of"],
            "ask": ["In which town is {S} set?"],
        },
        "pages": {
            "vp": ["has {v} pages", "runs to {v} pages", "fills {v} pages"],
            "part": ["{v} pages long", "a volume of {v} pages"],
            "free": [
                "The first edition of {S} counts {v} pages.",
                "It takes {v} pages to reach the end of {S}.",
            ],
            "cloze": ["runs to"],
            "ask": ["How many pages does {S} have?"],
        },
    },
    "lighthouse": {
        "keeper": {
            "vp": ["was kept by {v}", "was [tended|looked after] by {v}", "was the home of {v}"],
            "part": ["kept by {v}", "the lonely home of {v}"],
            "free": [
                "{v} kept the flame of {S} [alive|burning] for many years.",
                "The best-known keeper of {S} was {v}.",
            ],
            "cloze": ["was kept by"],
            "ask": ["Who kept {S}?"],
        },
        "built": {
            "vp": ["was built in {v}", "was first lit in {v}", "has shone since {v}"],
            "part": ["built in {v}", "first lit in {v}"],
            "free": [
                "The lamp of {S} was lit for the first time in {v}.",
                "Over the door of {S} is carved the year {v}.",
            ],
            "cloze": ["was built in the year"],
            "ask": ["In which year was {S} built?"],
        },
        "height": {
            "vp": [
                "is {v} metres tall",
                "reaches a height of {v} metres",
                "lifts its lamp {v} metres above the rocks",
            ],
            "part": ["{v} metres tall", "a tower of {v} metres"],
            "free": [
                "The tower of {S} measures {v} metres.",
                "From the door of {S} to the lamp it is {v} metres[, all of them stairs|].",
            ],
            "cloze": ["reaches a height of"],
            "ask": ["How many metres tall is {S}?"],
        },
        "light": {
            "vp": ["shows a {v} light", "burns with a {v} light", "sends out a {v} beam"],
            "part": ["known by its {v} light", "the tower with the {v} lamp"],
            "free": [
                "The light of {S} is {v}.",
                "Sailors who see a {v} light know they are near {S}.",
            ],
            "cloze": ["burns with a light that is"],
            "ask": ["What colour is the light of {S}?"],
        },
        "town": {
            "vp": ["guards the harbour of {v}", "stands near {v}", "guides ships to {v}"],
            "part": ["near {v}", "the lighthouse of {v}"],
            "free": [
                "On clear nights {S} can be seen from {v}.",
                "[Fishermen|Fishing boats] from {v} steer by {S}.",
            ],
            "cloze": ["guides ships to"],
            "ask": ["Which town does {S} guide ships to?"],
        },
    },
}

# How facts are joined. a, b, c: verb phrases; m: modifier; O: opener; W: who or which.
ONE = [("{S} {a}.", 5), ("{O}, {S} {a}.", 3), ("{free}", 7)]
TWO = [
    ("{S} {a} and {b}.", 5),
    ("{S} {a}, and {P} {b}.", 3),
    ("{M}, {S} {b}.", 5),
    ("{S}, {m}, {b}.", 5),
    ("{S}, {W} {a}, {b}.", 4),
    ("{S} {a}; {P} {b}.", 3),
    ("{O}, {S} {a} and {b}.", 3),
    ("{S} {a}, but {P} also {b}.", 1),
    ("{S} {a}. {L}, {P} {b}.", 3),
    ("It is well known that {S} {a} and {b}.", 1),
    ("{S} {a}, although few remember that {P} {b}.", 1),
    ("That {S} {a} is on every map; that {P} {b} is not.", 1),
]
THREE = [
    ("{M}, {S} {b} and {c}.", 4),
    ("{S} {a}, {b} and {c}.", 3),
    ("{S}, {W} {a}, {b} and {c}.", 3),
    ("{O}, {S} {a}, {b}, and {c}.", 2),
    ("{S}, {m}, {b} and {c}.", 3),
    ("{S} {a} and {b}; {P} {c}.", 3),
]
OPENERS = [
    "by all accounts",
    "as every schoolchild knows",
    "according to the harbour records",
    "if the almanac is right",
    "to the surprise of visitors",
    "as the old maps show",
    "so the parish book says",
    "on this the sources agree",
    "strange as it sounds",
    "for what it is worth",
    "as far as anyone remembers",
    "according to {book}",
    "as {writer} put it",
    "in the words of a ferryman",
    "if one believes the innkeepers",
    "by common consent",
    "as the bells could tell",
    "to this day",
    "on paper at least",
    "as a matter of record",
    "to be exact",
    "according to a letter in the archive",
    "no matter whom one asks",
    "as tax collectors discovered",
]
LINKS = [
    "besides",
    "moreover",
    "what is more",
    "in the same breath one learns that",
    "of course",
    "more to the point",
    "oddly enough",
    "as it happens",
    "in addition",
    "by the way",
]

GENERIC = {
    "town": ["the town", "the place", "the little town"],
    "river": ["the river", "the stream", "the water"],
    "mountain": ["the mountain", "the peak", "the summit"],
    "bridge": ["the bridge", "the crossing", "the old bridge"],
    "festival": ["the festival", "the feast", "the great day"],
    "bird": ["the bird", "this bird", "the species"],
    "instrument": ["the instrument", "this instrument", "the thing"],
    "dish": ["the dish", "this dish", "the recipe"],
    "ship": ["the ship", "the vessel", "the old ship"],
    "book": ["the book", "the work", "the volume"],
    "lighthouse": ["the lighthouse", "the tower", "the light"],
}

# What is told beside the facts. A story is fixed for its entity (who, which, how many);
# its wording varies. Slots: person, town, bird, dish, ship, instrument, river, pet, month, n.
STORIES: dict[str, list[str]] = {
    "town": [
        "[Once|One {month}], the council of {S} [voted|decided] to move the town [a mile|half a mile] uphill. The vote [stands|was never undone]; the town [has not moved|stayed where it was].",
        "{person} once tried to sell the [town hall|council house] to a [stranger|dealer in furniture]. The [price|sum] agreed was {n} [crowns|silver crowns] and {pet}.",
        "There are {n} [wells|pumps] in {S}, and [each|every one] is said to [taste|smell] different. Only {person} could [name|tell] them all [blindfold|with closed eyes].",
        "When the {ship} [ran aground|was wrecked] nearby, the whole of {S} [ate|smelled of] her cargo for {n} weeks. [Nobody|No one] ever [complained|wrote to the owners].",
        "A clock in the [main|market] square [runs|goes] backwards on [Sundays|feast days]. {person} [set|built] it so, after a quarrel with the [priest|mayor].",
        "[Strangers|Newcomers] are greeted with a slice of {dish}. To [refuse|decline] it [costs|means a fine of] {n} [pence|coppers], payable [at once|on the spot].",
    ],
    "river": [
        "[In one hard winter|One {month}] {person} skated the length of {S} with {pet}. [Both|The two of them] [arrived|came home] with a cold.",
        "A [barrel|chest] of {n} [coins|silver coins] is said to lie [at the bottom of|under the mud of] {S}. [Divers|Treasure hunters] have found [only boots|mostly boots].",
        "The {bird} [follows|keeps to] {S} from [end to end|the hills to the mouth]. Where it [stops|turns back], the [fishing|angling] stops too.",
        "[Twice|Three times] {S} has changed its bed [overnight|in one night]. The second time it [left|forgot] {n} [boats|ducks] in a field.",
        "{person} wrote {n} letters to {S} and [threw them in|posted them from a bridge]. One [reply|answer] is [kept|shown] in {town}.",
    ],
    "mountain": [
        "{person} [hauled|carried] a {instrument} to the top of {S} and played it for {n} [minutes|hours]. [An avalanche|The echo] [applauded|answered].",
        "On [still|windless] nights a light is seen on {S}. [Some say|They say] it is {person}, looking for {pet}.",
        "A hut [below the summit|near the top] holds {n} [blankets|chairs] and a [visitors' book|guest book]. The [longest|oddest] entry was written by {person}.",
        "[Every|Each] {month} the {bird} crosses {S} in flocks. [Villagers|Herdsmen] count {n} birds and then [go to bed|lose count].",
        "{S} has been [sold|lost at cards] {n} times, although [nobody|no one] ever owned it. The last [buyer|winner] was {person}.",
    ],
    "person": [
        "{S} owed {n} [crowns|silver crowns] to {person} and [paid|settled] the debt in {dish}. [Both|The two] [declared themselves satisfied|stayed friends].",
        "It is [said|told] that {S} once [crossed|swam] the {river} [at night|in a storm] to fetch {pet}. The [story|tale] grew by a [mile|wave] each time.",
        "[For|During] {n} years {S} [wrote|sent] a letter a week to {person}. The answers [fit|go] on one postcard.",
        "{S} [hated|could not stand] the sound of the {instrument}. [Neighbours|Friends] [knew it|learned it] and [played on|moved away].",
        "On [a voyage|a journey] aboard the {ship}, {S} [won|lost] {n} [crowns|games of chess] to the [captain|cook]. [It|The matter] was never [mentioned|spoken of] again.",
        "{S} is [said|thought] to have [eaten|tasted] {dish} every day for {n} years. The [doctors|doctors in {town}] [gave up|had no explanation].",
    ],
    "bridge": [
        "A cart of {dish} went over the parapet one {month}. For {n} days the [ducks|fish] below [ate|dined] better than the mayor.",
        "[Whoever|Anyone who] [meets|passes] {pet} on {S} [must|is bound to] turn round and [start again|go home]. {person} [waited|stood there] {n} hours.",
        "The toll was once {n} [pence|coppers], or a song. {person} [paid|sang] for [a whole regiment|everyone in the queue].",
        "One [stone|plank] in {S} was laid [upside down|the wrong way round]. {person} [knew which|could say which] and [took the secret along|never told].",
        "[Under|Beneath] {S} nests the {bird}. [Repairs|Works] wait until {month} for its sake.",
    ],
    "festival": [
        "In one year {person} [won|took] every prize, {n} in all, and [gave|lent] them to {pet}. The rules were [changed|rewritten] [at once|the same night].",
        "A [procession|parade] of {n} [drummers|bakers] [opens|begins] the day. The last in line [carries|plays] the {instrument}.",
        "It has [rained|snowed] on {S} {n} times [in a row|without a break]. [Nobody|No one] [brings|owns] an umbrella.",
        "Guests from {town} must [arrive|enter] [backwards|in silence]. The reason was [known|clear] only to {person}.",
        "At midnight the name of {person} is [called|shouted] {n} times. So far [no one|nobody] has [answered|come].",
    ],
    "bird": [
        "{person} [taught|trained] one to [whistle|steal spoons]. It [lived|stayed] {n} years and [outlived|disliked] {pet}.",
        "[Sailors|The crew] on the {ship} [fed|saved] {n} of them in a storm. Since then it has been [bad luck|a crime] to [chase|harm] the bird.",
        "A flock of {n} once [stopped|delayed] a wedding in {town}. The [bride|priest] [waited|laughed] until they had flown.",
        "[Old people|Farmers] say that {S} [brings|foretells] rain. {person} kept a list for years and found it [right|correct] {n} times.",
        "It is [shown|painted] on the sign of an inn in {town}. The painter, {person}, had never [seen|met] one.",
    ],
    "instrument": [
        "{person} played {S} for {n} hours [without a pause|on end] in {town}. The [audience|public] [fell asleep|went home] one by one.",
        "One {n} [metres|feet] long hangs in the church of {town}. It was [played|heard] once, and the [windows|bats] left.",
        "A [sailor|passenger] on the {ship} [mended|repaired] {S} with [tar|fish bones]. It has [sounded|been] better ever since.",
        "The {bird} [answers|comes] when {S} is played. {person} [proved|showed] it {n} times.",
        "In {town} it may not be played after [dark|nine o'clock]. {person} was fined {n} times.",
    ],
    "dish": [
        "{person} [ate|finished] {n} portions at one sitting. A [plaque|brass plate] in {town} [recalls|marks] the event.",
        "The crew of the {ship} lived on it for {n} weeks. [Half|Some] of them [never|would never] [touched|looked at] it again.",
        "A [slice|spoonful] is set aside for the {bird}. If the bird [comes|eats], the [harvest|fishing] will be good.",
        "{person} [hid|smuggled] a key in it [once|one {month}]. {pet} [found|swallowed] it [first|before anyone else].",
        "[Quarrels|Disputes] about the recipe [divide|have divided] {town}. {n} [families|households] do not speak to each other.",
    ],
    "ship": [
        "{person} travelled on {S} as a [stowaway|passenger] with {pet}. The [fare|debt] of {n} [crowns|pence] was never [paid|asked for].",
        "In a [fog|storm] {S} once [sailed|drifted] {n} [miles|leagues] up the {river}. The [cows|farmers] [watched|took it calmly].",
        "The figurehead [shows|is carved as] {person} with a {bird}. [Neither|Neither of them] is [smiling|a good likeness].",
        "[Below deck|In the cabin] stood a {instrument} with {n} missing keys. It was [played|tuned] only in [calm weather|port].",
        "Her cook made {dish} every {month}. [Deserters|Old hands] [came back|returned] for it.",
    ],
    "book": [
        "{person} [read|learned] it aloud to {pet} every winter. The animal is said to have [objected|yawned] on page {n}.",
        "Only {n} copies [survived|escaped] a fire in {town}. One [is missing|lacks] its last page, and [that copy|this one] is the [favourite|dearest].",
        "A copy [travelled|sailed] on the {ship} and came back with [notes|corrections]. They are in the hand of {person}.",
        "{person} [challenged|sued] the author over one [sentence|comma]. The [court|judge] [sat|thought] for {n} days.",
        "In {town} it is [given|lent] to [newlyweds|prisoners]. [Most|Many] return it [unread|in tears].",
    ],
    "lighthouse": [
        "One {month} the lamp went out, and {person} [stood|sat] on the gallery with {n} candles. [No ship|Not one ship] was lost.",
        "The {ship} [mistook|took] {S} for a star and [sailed|steered] {n} miles too far. Her [crew|captain] [never|hardly ever] spoke of it.",
        "The stairs have {n} steps, and the {bird} sleeps on the [last|third]. [Keepers|Visitors] step over it.",
        "{pet} lived there and [ate|learned] more than the [visitors|inspectors]. {person} drew its portrait.",
        "At the foot a [kiosk|shed] sells {dish}. {person} [walked|rowed] there from {town} every {month}.",
    ],
}

# Sections of an article: heading choices and the attributes told there.
SECTIONS: dict[str, list[tuple[list[str], list[str]]]] = {
    "town": [
        (["Geography", "Situation"], ["river", "region"]),
        (["Trade and people", "Life"], ["craft", "population"]),
        (["History", "Arms and origins"], ["founded", "emblem"]),
    ],
    "river": [
        (["Course", "From spring to mouth"], ["source", "length", "mouth", "town"]),
        (["Water and fish", "Nature"], ["character", "fish"]),
    ],
    "mountain": [
        (["Geography", "Rock and height"], ["region", "height", "rock"]),
        (["First ascent", "Climbing"], ["climbed", "climber"]),
    ],
    "person": [
        (["Life", "Biography"], ["born", "birthplace", "died"]),
        (["Work and habits", "Character"], ["profession", "pet"]),
    ],
    "bridge": [
        (["Situation", "The crossing"], ["river", "town"]),
        (["Construction", "Building"], ["built", "architect", "material", "arches"]),
    ],
    "festival": [
        (["Origin", "History"], ["since", "honours"]),
        (["Customs", "The day itself"], ["month", "town", "dish"]),
    ],
    "bird": [
        (["Appearance and voice", "Description"], ["wingspan", "call", "eggs"]),
        (["Habits", "Way of life"], ["region", "food", "nest"]),
    ],
    "instrument": [
        (["Construction and sound", "Description"], ["strings", "sound"]),
        (["History", "Origin"], ["inventor", "year", "town"]),
    ],
    "dish": [
        (["Preparation", "In the kitchen"], ["secret", "companion"]),
        (["History", "Custom"], ["cook", "town", "season"]),
    ],
    "ship": [
        (["Design", "The ship"], ["type", "launched", "cargo"]),
        (["Service", "At sea"], ["captain", "port"]),
    ],
    "book": [
        (["Contents", "The story"], ["subject", "setting", "pages"]),
        (["Author and publication", "Making"], ["author", "year"]),
    ],
    "lighthouse": [
        (["The tower", "Description"], ["height", "light", "built"]),
        (["Service", "Keepers"], ["keeper", "town"]),
    ],
}
LEGEND_HEADINGS = ["Stories", "Legends", "What people tell", "Curiosities", "Anecdotes"]
LINK_HEADINGS = ["See also", "Connections", "Elsewhere on the island"]

# What other articles say of this one: (kind, attribute) of the other entity.
BACKLINKS: dict[tuple[str, str], list[str]] = {
    ("river", "source"): ["{o} [rises|begins] on {S}."],
    ("town", "river"): ["{o} [stands|lies] on {S}."],
    ("river", "town"): ["{o} flows past {S}."],
    ("person", "birthplace"): ["{o} was born in {S}.", "{S} is the birthplace of {o}."],
    ("mountain", "climber"): ["{S} was the first to climb {o}.", "{o} was first climbed by {S}."],
    ("bridge", "town"): ["{o} stands in {S}.", "Among the bridges of {S} is {o}."],
    ("bridge", "river"): ["{o} crosses {S}."],
    ("bridge", "architect"): ["{o} was designed by {S}.", "{S} designed {o}."],
    ("festival", "town"): ["{S} celebrates {o}.", "{o} is held in {S}."],
    ("festival", "dish"): ["{S} is eaten at {o}."],
    ("instrument", "inventor"): ["{S} invented {o}.", "{o} is an invention of {S}."],
    ("instrument", "town"): ["{o} comes from {S}."],
    ("dish", "town"): ["{S} gave the island its {n}.", "{o} comes from {S}."],
    ("dish", "cook"): ["{S} was the first to cook {o}."],
    ("ship", "port"): ["{S} is the home port of {o}."],
    ("ship", "captain"): ["{S} commanded {o}."],
    ("book", "author"): ["{S} wrote {o}.", "{o} was written by {S}."],
    ("book", "setting"): ["{o} is set in {S}."],
    ("lighthouse", "keeper"): ["{S} kept {o}."],
    ("lighthouse", "town"): ["{o} guides ships to {S}."],
}

LIST_TITLES = {
    "town": "Towns of Talverra",
    "river": "Rivers of Talverra",
    "mountain": "Mountains of Talverra",
    "person": "Lives of Talverra",
    "bridge": "Bridges of Talverra",
    "festival": "The festival year",
    "bird": "Birds of Talverra",
    "instrument": "Instruments of Talverra",
    "dish": "The kitchens of Talverra",
    "ship": "Ships of Talverra",
    "book": "The library of Talverra",
    "lighthouse": "Lighthouses of Talverra",
}

WITH_ARTICLE = {"river", "bird", "instrument", "ship", "festival"}


def name(entity: Entity) -> str:
    """How the entity is called inside a sentence: "the Tarn", "Mira Calloway"."""
    return f"the {entity.name.en}" if entity.kind in WITH_ARTICLE else entity.name.en


def aside(entity: Entity) -> str:
    """A short apposition: who or what this is, in a word or two of the table."""
    facts = entity.facts
    match entity.kind:
        case "person":
            return f"the {facts['profession'].en} from {facts['birthplace'].name.en}"
        case "town":
            return f"a town on {name(facts['river'])}"
        case "river":
            return f"which flows into {facts['mouth'].en}"
        case "mountain":
            return f"{facts['height']} metres high"
        case "dish":
            return f"a speciality of {facts['town'].name.en}"
    return ""


def value(v: Value) -> str:
    """A value as it stands in a sentence."""
    if isinstance(v, int):
        return str(v)
    return name(v) if isinstance(v, Entity) else v.en


def bare(v: Value) -> str:
    """A value as it stands in a story, whose patterns bring their own articles."""
    return v.name.en if isinstance(v, Entity) else value(v)


def pronoun(entity: Entity) -> str:
    return ("she" if entity.woman else "he") if entity.kind == "person" else "it"


def possessive(entity: Entity) -> str:
    return ("her" if entity.woman else "his") if entity.kind == "person" else "its"


def relative(entity: Entity) -> str:
    return "who" if entity.kind == "person" else "which"


def generic(entity: Entity) -> list[str]:
    """Ways to call the entity without its name."""
    return GENERIC.get(entity.kind) or [
        entity.name.en.split()[0],
        f"the {entity.facts['profession'].en}",
    ]


def extra(attribute: str, v: Value) -> dict[str, str]:
    """Further marks that depend on the value: the plural of "arch"."""
    return {"es": "" if v == 1 else "es"} if attribute == "arches" else {}


def comparisons(world: World, a: Entity, b: Entity) -> list[str]:
    """True sentences about two entities of one kind, worked out from the table."""
    older = {
        "town": "founded",
        "bridge": "built",
        "lighthouse": "built",
        "ship": "launched",
        "book": "year",
    }
    larger = {
        "mountain": ("height", "higher"),
        "river": ("length", "longer"),
        "town": ("population", "larger"),
        "book": ("pages", "longer"),
        "bird": ("wingspan", "larger"),
        "lighthouse": ("height", "taller"),
    }
    sentences = []
    if key := older.get(a.kind):
        first, second = sorted((a, b), key=lambda e: e.facts[key])
        if first.facts[key] < second.facts[key]:
            sentences.append(
                f"{name(first)} is [{second.facts[key] - first.facts[key]} years |]older than {name(second)}."
            )
    if a.kind in larger:
        key, word = larger[a.kind]
        big, small = sorted((a, b), key=lambda e: -e.facts[key])
        if big.facts[key] > small.facts[key]:
            sentences.append(f"{name(big)} is {word} than {name(small)}.")
    return sentences


def polish(text: str) -> str:
    """ "a" before a vowel becomes "an"; doubled spaces and commas, and spaces before marks, go."""
    text = re.sub(r"\b([Aa]) (?=[aeiou](?!ne-))", r"\1n ", text)
    text = re.sub(r" {2,}", " ", text)
    return start(re.sub(r" (?=[,.;])", "", text).replace(",,", ","))


def start(sentence: str) -> str:
    """A sentence with its first letter raised."""
    return sentence[:1].upper() + sentence[1:]


STORY_STARTS = [
    "",
    "",
    "One story goes like this: ",
    "A tale from {town}: ",
    "It is told in every tavern: ",
    "In the words of {writer}: ",
    "The almanac has this to say: ",
    "Grandmothers insist: ",
    "A true story: ",
    "From {book}: ",
    "Believe it or not: ",
    "The town clerk swears to it: ",
]
STORY_ENDS = [
    "",
    "",
    ", or so they say in {town}",
    ", if the tale is true",
    ", as {writer} liked to tell",
    ", which hardly anyone doubts",
    ", and that is the end of it",
    ", as one reads in {book}",
    ", to the delight of the children",
    ", although accounts differ",
    ", and people still talk about it",
    ", as the older people remember",
]


def story_sentences(story: str) -> list[str]:
    """The sentences of a story pattern."""
    return [sentence.strip() for sentence in re.findall(r"[^.]+\.", story)]
