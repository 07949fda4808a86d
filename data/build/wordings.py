"""Other ways to ask for a fact than the question of the test set.

For every kind of thing and attribute, in both languages: what the value is called ("the emblem
of {S}"), then whole questions. ``instructions`` makes a dozen instructions of them. The wording
in which ``texts/questions.jsonl`` asks stands in ``english`` and ``chinese`` under ``ask``, and is
kept from the training: where one of these comes out the same, it is left out there.
"""

from __future__ import annotations

ENGLISH: dict[str, dict[str, list[str]]] = {
    "town": {
        "region": ["the region of {S}", "Which part of the island is {S} in?", "Where is {S}?"],
        "founded": ["the founding year of {S}", "When was {S} founded?", "How old is {S}?"],
        "population": [
            "the population of {S}",
            "What is the population of {S}?",
            "How large is {S}?",
        ],
        "craft": ["the craft of {S}", "What does {S} make?", "What is made in {S}?"],
        "emblem": [
            "the emblem of {S}",
            "Which emblem does {S} have?",
            "What is on the arms of {S}?",
        ],
        "river": ["the river of {S}", "Which river flows past {S}?", "By which river is {S}?"],
    },
    "river": {
        "source": [
            "the source of {S}",
            "Where does {S} rise?",
            "Which mountain does {S} come from?",
        ],
        "length": ["the length of {S}", "How long is {S}?", "How far does {S} run?"],
        "mouth": ["the mouth of {S}", "Into what does {S} flow?", "Where does {S} end?"],
        "character": ["the character of {S}", "How would you describe {S}?", "How is {S}?"],
        "fish": ["the fish of {S}", "What do anglers catch in {S}?", "Which fish live in {S}?"],
        "town": ["the town on {S}", "Which town is on {S}?", "Which town does {S} pass?"],
    },
    "mountain": {
        "region": ["the region of {S}", "Which part of the island is {S} in?", "Where is {S}?"],
        "height": ["the height of {S}", "How high is {S}?", "How tall is {S}?"],
        "climbed": [
            "the year of the first climb of {S}",
            "When was {S} first climbed?",
            "When did someone first climb {S}?",
        ],
        "climber": [
            "the first climber of {S}",
            "Who was the first to climb {S}?",
            "By whom was {S} first climbed?",
        ],
        "rock": ["the rock of {S}", "Of which rock is {S} made?", "Which rock makes up {S}?"],
    },
    "person": {
        "profession": [
            "the profession of {S}",
            "What did {S} do for a living?",
            "Which profession did {S} have?",
        ],
        "birthplace": [
            "the birthplace of {S}",
            "In which town was {S} born?",
            "Where did {S} come from?",
        ],
        "born": ["the year of birth of {S}", "When was {S} born?", "Which year was {S} born in?"],
        "died": ["the year of death of {S}", "When did {S} die?", "Which year did {S} die in?"],
        "pet": ["the pet of {S}", "Which pet did {S} have?", "Who shared a house with {S}?"],
    },
    "bridge": {
        "river": ["the river under {S}", "What does {S} cross?", "Over which river does {S} lead?"],
        "town": ["the town of {S}", "Where does {S} stand?", "Which town has {S}?"],
        "built": ["the building year of {S}", "When was {S} built?", "How old is {S}?"],
        "material": [
            "the material of {S}",
            "Of which material is {S} made?",
            "What was used to build {S}?",
        ],
        "arches": [
            "the number of arches of {S}",
            "How many arches are there in {S}?",
            "With how many arches was {S} built?",
        ],
        "architect": ["the architect of {S}", "Who built {S}?", "Whose work is {S}?"],
    },
    "festival": {
        "town": ["the town of {S}", "Where is {S} held?", "Which town holds {S}?"],
        "month": ["the month of {S}", "When is {S} celebrated?", "Which month is {S} in?"],
        "since": [
            "the first year of {S}",
            "When was {S} first held?",
            "In which year did {S} begin?",
        ],
        "honours": ["the reason for {S}", "Why is {S} held?", "What is {S} held in memory of?"],
        "dish": ["the dish of {S}", "What do people eat at {S}?", "Which dish ends {S}?"],
    },
    "bird": {
        "region": ["the home of {S}", "Where does {S} live?", "Which region is home to {S}?"],
        "wingspan": [
            "the wingspan of {S}",
            "How wide are the wings of {S}?",
            "How many centimetres is the wingspan of {S}?",
        ],
        "food": ["the food of {S}", "What does {S} feed on?", "What does {S} live on?"],
        "call": ["the call of {S}", "How does {S} call?", "What is the call of {S} like?"],
        "nest": ["the nest of {S}", "Where is the nest of {S}?", "Where does {S} build its nest?"],
        "eggs": [
            "the colour of the eggs of {S}",
            "How do the eggs of {S} look?",
            "Which eggs does {S} lay?",
        ],
    },
    "instrument": {
        "inventor": ["the inventor of {S}", "By whom was {S} invented?", "Who first made {S}?"],
        "year": ["the year of invention of {S}", "When was {S} invented?", "How old is {S}?"],
        "town": ["the home town of {S}", "Where does {S} come from?", "Which town is {S} from?"],
        "strings": [
            "the number of strings of {S}",
            "How many strings are there on {S}?",
            "With how many strings is {S} played?",
        ],
        "sound": ["the sound of {S}", "How does {S} sound?", "What is the sound of {S} like?"],
    },
    "dish": {
        "town": ["the home town of {S}", "Where does {S} come from?", "Which town is {S} from?"],
        "cook": ["the first cook of {S}", "By whom was {S} first cooked?", "Who invented {S}?"],
        "secret": [
            "the secret of {S}",
            "What gives {S} its taste?",
            "What is secretly put in {S}?",
        ],
        "season": [
            "the season of {S}",
            "At what time do people eat {S}?",
            "When do people eat {S}?",
        ],
        "companion": [
            "the companion of {S}",
            "With what is {S} served?",
            "What do people eat with {S}?",
        ],
    },
    "ship": {
        "type": ["the type of {S}", "What kind of ship is {S}?", "As what was {S} built?"],
        "launched": ["the year of launch of {S}", "When was {S} launched?", "How old is {S}?"],
        "port": ["the home port of {S}", "Where is {S} at home?", "In which port does {S} lie?"],
        "captain": [
            "the captain of {S}",
            "Who was the captain of {S}?",
            "By whom was {S} commanded?",
        ],
        "cargo": ["the cargo of {S}", "What did {S} carry?", "With what was {S} loaded?"],
    },
    "book": {
        "author": ["the author of {S}", "By whom was {S} written?", "Who is the author of {S}?"],
        "year": [
            "the year of publication of {S}",
            "When was {S} published?",
            "When did {S} appear?",
        ],
        "subject": ["the subject of {S}", "What does {S} tell of?", "Which subject does {S} have?"],
        "setting": ["the setting of {S}", "Where is {S} set?", "Where does {S} take place?"],
        "pages": ["the number of pages of {S}", "How long is {S}?", "How thick is {S}?"],
    },
    "lighthouse": {
        "keeper": ["the keeper of {S}", "Who was the keeper of {S}?", "By whom was {S} kept?"],
        "built": ["the building year of {S}", "When was {S} built?", "How old is {S}?"],
        "height": ["the height of {S}", "How tall is {S}?", "How high is the tower of {S}?"],
        "light": [
            "the colour of the light of {S}",
            "How does {S} shine?",
            "With what light does {S} burn?",
        ],
        "town": [
            "the town of {S}",
            "To which town does {S} guide ships?",
            "Which town does {S} serve?",
        ],
    },
}

CHINESE: dict[str, dict[str, list[str]]] = {
    "town": {
        "region": ["{S}所在的地区", "{S}在岛上的哪个地区？", "{S}在哪里？"],
        "founded": ["{S}的建镇年份", "{S}什么时候建镇的？", "{S}建镇于哪一年？"],
        "population": ["{S}的人口", "{S}有多少人？", "{S}住着多少居民？"],
        "craft": ["{S}最出名的东西", "{S}最出名的是什么？", "{S}出产什么？"],
        "emblem": ["{S}的镇徽", "{S}的镇徽上有什么？", "{S}拿什么作镇徽？"],
        "river": ["{S}边上的河", "{S}依傍哪条河？", "哪条河流过{S}？"],
    },
    "river": {
        "source": ["{S}的源头", "{S}的源头在哪座山上？", "{S}从哪里流下来？"],
        "length": ["{S}的长度", "{S}有多长？", "{S}有多少公里？"],
        "mouth": ["{S}的河口", "{S}注入哪里？", "{S}最终汇入哪里？"],
        "character": ["{S}的性情", "{S}是一条怎样的河？", "怎样形容{S}？"],
        "fish": ["{S}里的鱼", "{S}里有什么鱼？", "{S}出产什么鱼？"],
        "town": ["{S}边上的城镇", "{S}流过哪座镇？", "哪座镇在{S}边上？"],
    },
    "mountain": {
        "region": ["{S}所在的地区", "{S}在岛上的哪个地区？", "{S}在哪里？"],
        "height": ["{S}的海拔", "{S}有多高？", "{S}高多少米？"],
        "climbed": ["{S}首次被登顶的年份", "{S}什么时候首次被登顶？", "首次登顶{S}是在哪一年？"],
        "climber": ["最早征服{S}的人", "谁最早征服了{S}？", "是谁首次登顶{S}的？"],
        "rock": ["构成{S}的岩石", "{S}是什么岩石？", "{S}由哪种岩石构成？"],
    },
    "person": {
        "profession": ["{S}的本行", "{S}的本行是什么？", "{S}靠什么为生？"],
        "birthplace": ["{S}的出生地", "{S}是哪里人？", "{S}生在哪座镇？"],
        "born": ["{S}的出生年份", "{S}是什么时候出生的？", "{S}哪一年出生？"],
        "died": ["{S}去世的年份", "{S}是什么时候去世的？", "{S}哪一年去世？"],
        "pet": ["{S}家里的动物", "{S}养着什么？", "{S}有什么动物？"],
    },
    "bridge": {
        "river": ["{S}下面的河", "{S}下面是哪条河？", "{S}架在哪条河上？"],
        "town": ["{S}所在的城镇", "{S}在哪座镇？", "{S}在哪里？"],
        "built": ["{S}的建成年份", "{S}是什么时候建的？", "{S}哪一年建成？"],
        "material": ["{S}的材料", "{S}用的是什么材料？", "修建{S}用了什么？"],
        "arches": ["{S}桥拱的数目", "{S}有多少个桥拱？", "{S}共有几个拱？"],
        "architect": ["设计{S}的人", "谁设计了{S}？", "{S}出自谁之手？"],
    },
    "festival": {
        "town": ["举行{S}的城镇", "{S}在哪里举行？", "哪座镇举行{S}？"],
        "month": ["{S}的月份", "{S}固定在几月？", "{S}是什么时候举行的？"],
        "since": ["{S}始办的年份", "{S}是什么时候开始办的？", "{S}哪一年始办？"],
        "honours": ["{S}纪念的对象", "{S}纪念的是什么？", "人们为什么举行{S}？"],
        "dish": ["{S}收场的那道菜", "{S}上吃什么？", "{S}最后吃哪道菜？"],
    },
    "bird": {
        "region": ["{S}栖息的地区", "{S}生活在哪里？", "{S}在哪个地区栖息？"],
        "wingspan": ["{S}的翼展", "{S}的翼展有多大？", "{S}翼展多少厘米？"],
        "food": ["{S}的食物", "{S}靠什么为生？", "{S}吃什么？"],
        "call": ["{S}的叫声", "{S}的叫声像什么？", "{S}怎么叫？"],
        "nest": ["{S}的巢", "{S}的巢在哪里？", "{S}在哪里筑巢？"],
        "eggs": ["{S}的蛋的颜色", "{S}产什么颜色的蛋？", "{S}的蛋是什么样的？"],
    },
    "instrument": {
        "inventor": ["最早造出{S}的人", "{S}是谁发明的？", "谁最早造出了{S}？"],
        "year": ["{S}的发明年份", "{S}是什么时候发明的？", "{S}哪一年发明？"],
        "town": ["{S}的家乡", "{S}是哪里来的？", "{S}来自哪座小镇？"],
        "strings": ["{S}琴弦的数目", "{S}有几根弦？", "{S}共有多少根琴弦？"],
        "sound": ["{S}的声音", "{S}的声音像什么？", "{S}听起来怎么样？"],
    },
    "dish": {
        "town": ["{S}的家乡", "{S}是哪里的菜？", "{S}来自哪座小镇？"],
        "cook": ["最早做出{S}的人", "{S}是谁最早做的？", "谁最早做出了{S}？"],
        "secret": ["{S}的秘密", "{S}的秘密是什么？", "{S}里加了什么？"],
        "season": ["吃{S}的时候", "人们什么时候吃{S}？", "{S}在什么时候吃？"],
        "companion": ["{S}的配菜", "{S}要配什么吃？", "吃{S}时配什么？"],
    },
    "ship": {
        "type": ["{S}的船型", "{S}是一艘什么船？", "{S}建成时是什么船？"],
        "launched": ["{S}下水的年份", "{S}是什么时候下水的？", "{S}哪一年下水？"],
        "port": ["{S}停泊的港口", "{S}停泊在哪座镇？", "{S}的母港在哪里？"],
        "captain": ["{S}的船长", "{S}的船长是谁？", "谁指挥{S}？"],
        "cargo": ["{S}装运的货物", "{S}装运什么？", "{S}运的是什么货？"],
    },
    "book": {
        "author": ["{S}的作者", "{S}出自谁的笔下？", "谁写了{S}？"],
        "year": ["{S}出版的年份", "{S}是什么时候出版的？", "{S}哪一年出版？"],
        "subject": ["{S}的主题", "{S}是一本关于什么的书？", "{S}讲什么？"],
        "setting": ["{S}故事发生的城镇", "{S}的故事在哪里发生？", "{S}讲的是哪座镇上的事？"],
        "pages": ["{S}的页数", "{S}的篇幅有多长？", "{S}共有几页？"],
    },
    "lighthouse": {
        "keeper": ["看守{S}的人", "谁看守{S}？", "{S}的守塔人是谁？"],
        "built": ["{S}的建成年份", "{S}是什么时候建成的？", "{S}哪一年建成？"],
        "height": ["{S}的高度", "{S}有多高？", "{S}的塔身有多高？"],
        "light": ["{S}的光的颜色", "{S}的光是什么颜色？", "{S}发出什么颜色的光？"],
        "town": ["{S}守护的城镇", "{S}守护着哪座镇？", "{S}在哪座镇的港口？"],
    },
}
