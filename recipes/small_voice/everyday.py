"""What people say every day, as templates: a name in braces stands for any of its entries, which may have braces too."""

import random
import re

_SLOT = re.compile(r"{(\w+)}")

_LISTS = """
name: Anna Tom Maria Peter Sarah James Emma Daniel Laura Mark Susan Henry Helen David Julia Robert Kate Michael Alice Ben
place: the station | the office | the market | the library | the airport | the beach | the hospital | the museum | the park | the school | the hotel | the bank | the kitchen | the garden | town | the city | the village | the theater | the restaurant | the post office
city: London Paris Boston Berlin Chicago Madrid Denver Rome Dublin Toronto Seattle Vienna
time: in the morning | this evening | tomorrow | next week | on Monday | on Friday night | after lunch | before dinner | at {hour} | at {hour} thirty | in {number} minutes | in an hour | last night | yesterday | on Sunday afternoon | next month | in the summer | at noon | right now | later today | at half past {hour} | by the end of the week
hour: one two three four five six seven eight nine ten eleven twelve
number: {hour} | {digit} | fifteen | twenty | thirty | forty | fifty | sixty | twenty {digit} | thirty {digit} | forty {digit} | a hundred | two hundred
digit: one two three four five six seven eight nine
thing: the keys | the report | your coat | the tickets | a cup of coffee | the new phone | my bag | the camera | a loaf of bread | the letter | the umbrella | a glass of water | the map | some fruit | the book | the old bicycle | the computer | a sandwich | the bill | the window | the door | a present for {name} | the photographs | my glasses | the newspaper | the laundry
food: soup | pasta | chicken and rice | pancakes | apple pie | fish | vegetables | salad | chocolate cake | fresh bread | noodles | eggs | cheese | potatoes
drink: tea | coffee | milk | orange juice | water | lemonade
person: my brother | my sister | my mother | my father | our neighbor | the teacher | the doctor | my boss | {name} | the driver | her husband | his wife | a friend of mine | the children | the waiter | our guests
who: I | you | we | they | {name} | {person}
weather: raining | snowing | very cold | quite warm | windy | cloudy | getting dark | too hot | foggy | sunny
feeling: tired | happy | hungry | a little nervous | excited | angry | sad | ready | late | busy | proud | surprised | confused | sure | afraid | fine
do: go to {place} | call {name} | finish the work | cook dinner | buy {thing} | read a book | wash the car | play the piano | take a walk | catch the train | meet {person} | watch a movie | clean the house | learn Spanish | write to {name} | find {thing} | wait for {person} | fix {thing} | open {thing} | pay for {thing} | bring {thing} | eat {food} | drink some {drink} | sleep a little longer | move to {city} | change the subject | ask {person} | talk to {person} | leave early | try again
doing: going to {place} | looking for {thing} | waiting for {person} | making {food} | reading the newspaper | talking to {person} | thinking about it | working too much | driving to {city} | learning to swim | getting better | taking the bus
adverb: really | probably | certainly | usually | never | always | often | quickly | slowly | carefully | almost | finally | suddenly | simply
quality: good | great | terrible | wonderful | strange | interesting | important | difficult | easy | expensive | cheap | beautiful | quiet | loud | boring | perfect | dangerous | useful
animal: dog | cat | horse | bird | rabbit | lion | elephant | duck | mouse | fox | bear | sheep
color: red blue green yellow white black brown orange purple gray
yes: Yes | No | Well | Of course | Sure | Okay | Right | Oh | Maybe | I see | All right | Not yet | Exactly | Thanks | Sorry | Hey | Look | Listen | Hmm
"""

_TEMPLATES = """
Good morning, {name}, how are you today? | Good evening, everybody. | Hello, {name}, it is nice to meet you. | Hi, {name}! How was your day?
{yes}, {who} will {do} {time}. | {yes}, I think {person} is {feeling}. | I am {feeling}, but I want to {do} {time}. | Where did you put {thing}?
Can you {do} {time}? | Could you please {do}? | Would you like to {do} with me {time}? | Do you want {food} or {food}? | Shall we {do} {time}?
What time does the train to {city} leave? | The train to {city} leaves at {hour} {number}. | The bus comes every {number} minutes. | It takes {number} minutes to get to {place}.
It is {weather} outside, so take {thing}. | It was {weather} when we came to {place}. | The weather in {city} will be {quality} {time}. | Is it still {weather}?
I have {number} apples and {number} oranges. | She is {number} years old. | That costs {number} dollars. | We need {number} more chairs. | Room number {number} is on the {floor} floor.
I am {doing}. | {who} {adverb} want to {do}. | {person} was {doing} when the phone rang. | Why are you {doing}? | What are you {doing} for? | We were {doing} {time}.
My favorite color is {color}. | The {color} {animal} sat under the {color} tree. | The {animal} ran across the road. | There is a {color} car in front of {place}. | I saw a {animal} near {place} {time}.
That is a {quality} idea! | That sounds {quality}. | How {quality}! | It was not as {quality} as I thought. | This is the most {quality} thing I have ever seen. | What a {quality} day! | Is it really so {quality}?
Please turn {left} at the next corner. | Go straight ahead and then turn {left}. | The entrance is on your {left}. | You will find it next to {place}. | How do I get to {place}?
Let me know if you need {thing}. | Don't forget to {do}. | Please {do} before you {do}. | I forgot to {do}. | We should {do} more often. | I would rather {do} than {do}. | You have to {do} first.
I don't know what you mean. | I'm not sure about that. | That's what I thought. | I can't believe it! | You're welcome. | Thank you very much for your help. | See you {time}! | Have a nice day. | Take care of yourself.
{yes}. | {yes}! | {yes}, {name}. | {yes}, that's {quality}. | {yes}, I'll {do}. | {yes}, we can {do} {time}. | {yes}, but {person} can't {do}. | {yes}, why not? | {yes}, it is {weather}. | Really? | What? | Why? | Me too. | Not at all. | No problem. | One moment, please.
If it is {weather}, we will {do}. | When {person} comes home, we {do}. | Because I was {feeling}, I could not {do}. | After we {do}, I want to {do}. | Although it was {weather}, {person} wanted to {do}.
{person} told me that {who} will {do}. | {name} asked whether you could {do}. | I hope that {person} will {do} {time}. | I heard that {person} moved to {city}. | Everybody knows that {name} is {feeling}.
Did you hear about {person}? | Have you ever been to {city}? | Has {person} seen {thing}? | Who wants to {do}? | When did {person} {do}? | How often do you {do}? | How much is {thing}? | Which way is {place}? | Are you {feeling}? | Is {person} {feeling} today?
Today we are going to talk about {topic}. | Welcome back to our show about {topic}. | Tell me more about {topic}. | I have always loved {topic}. | What do you think about {topic}? | The lesson about {topic} begins {time}. | There was a story about {topic} in the newspaper.
The number is {digit} {digit} {digit} {digit}. | {number} plus {number} is {number}. | My phone number is {digit} {digit} {digit}, {digit} {digit} {digit}. | Count to ten: one, two, three, four, five, six, seven, eight, nine, ten. | Today is {day}, the {date} of {month}. | Her birthday is on the {date} of {month}. | We met in {month}.
"""

_MORE_LISTS = """
floor: first second third fourth fifth sixth top
left: left right
topic: music | the weather | cooking | space travel | history | the ocean | football | modern art | old movies | science | politics | the news | animals | health | computers | language | mountains | gardening | trains | money | education | artificial intelligence | the economy | photography
day: Monday Tuesday Wednesday Thursday Friday Saturday Sunday
date: first | second | third | fourth | fifth | sixth | seventh | eighth | ninth | tenth | twelfth | fifteenth | twentieth | thirtieth | twenty first | twenty fourth
month: January February March April May June July August September October November December
"""


def _read_lists(text: str) -> dict[str, list[str]]:
    """Entries stand between bars, or, where there is no bar, between blanks."""
    lists = {}
    for line in text.strip().splitlines():
        name, _, entries = line.partition(": ")
        lists[name] = [entry.strip() for entry in entries.split("|")] if "|" in entries else entries.split()
    return lists


LISTS = _read_lists(_LISTS + _MORE_LISTS.lstrip("\n"))
TEMPLATES = [part.strip() for line in _TEMPLATES.strip().splitlines() for part in line.split("|")]


def everyday_sentence(rng: random.Random) -> str:
    """One sentence, as it is written."""
    text = rng.choice(TEMPLATES)
    while slot := _SLOT.search(text):
        text = text[: slot.start()] + rng.choice(LISTS[slot[1]]) + text[slot.end() :]
    return text[0].upper() + text[1:]
