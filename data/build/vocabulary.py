"""The words of Talverra, in English and Chinese: names and values, side by side.

Each entry is written ``english=中文``. The order of the lists is part of the seed:
changing it changes the world.
"""

from __future__ import annotations

from typing import NamedTuple


class Words(NamedTuple):
    """One name or value in both languages."""

    en: str
    zh: str


def _pairs(text: str) -> list[Words]:
    entries = [entry.strip() for entry in text.replace("\n", ";").split(";")]
    return [Words(*entry.split("=")) for entry in entries if entry]


ISLAND = Words("Talverra", "塔尔维拉")

REGIONS = _pairs("""
the Northern Fells=北部高地; the Salt Marches=盐沼区; the Lantern Coast=灯笼海岸; the Orchard Vale=果园谷
the Windward Downs=迎风丘陵; the Amber Moors=琥珀荒原; the Sevenwood=七林; the Low Country=低地
""")

TOWN_STEMS = _pairs("""
Alder=阿尔德; Amber=安伯; Ash=阿什; Bel=贝尔; Bram=布拉姆; Bren=布伦; Cal=卡尔; Corn=科恩; Cran=克兰; Dun=邓
Dray=德雷; Eld=埃尔德; Ember=恩伯; Fal=法尔; Fen=芬; Gar=加尔; Glan=格兰; Har=哈尔; Hol=霍尔; Ister=伊斯特
Kel=凯尔; Kest=凯斯特; Lan=兰; Lor=洛尔; Mar=马尔; Mel=梅尔; Nor=诺尔; Oster=奥斯特; Pell=佩尔; Quill=奎尔
Rath=拉斯; Rook=鲁克; Sel=塞尔; Stan=斯坦; Tam=塔姆; Thorn=索恩; Ul=乌尔; Ven=文; Wen=温; Yar=亚尔
""")
TOWN_ENDINGS = _pairs("""
mere=米尔; wick=威克; ford=福德; haven=黑文; bury=伯里; ton=顿; stead=斯特德; gate=盖特; combe=库姆; moor=穆尔
holt=霍尔特; ness=内斯
""")

RIVERS = _pairs("""
Aven=阿文河; Brell=布雷尔河; Cass=卡斯河; Dorrow=多罗河; Elver=埃尔弗河; Fane=费恩河; Gillow=吉洛河; Hesper=赫斯珀河
Isk=伊斯克河; Jorrel=乔雷尔河; Kerrow=凯罗河; Lathe=莱斯河; Merrin=梅林河; Nidd=尼德河; Orrel=奥雷尔河; Perrow=佩罗河
Quenn=昆恩河; Rill=里尔河; Sarrow=萨罗河; Teme=蒂姆河; Umber=安伯尔河; Vask=瓦斯克河; Wythe=怀斯河; Yarrow=亚罗河
Zell=泽尔河; Ambrel=安布雷尔河; Birrow=比罗河; Corvel=科维尔河; Dell=德尔河; Eskel=埃斯克尔河; Frith=弗里斯河
Garrow=加罗河; Havel=哈维尔河; Innis=因尼斯河; Jessel=杰塞尔河; Kaddow=卡多河
""")
MOUNTAIN_FIRST = _pairs("""
Cold=冷; Broken=断; Silver=银; Red=赤; Sleeping=睡; Iron=铁; White=白; Lonely=孤; Black=黑; Singing=歌; Hollow=空
Golden=金
""")
MOUNTAIN_LAST = _pairs("Tor=岩峰; Horn=角峰; Crown=冠峰; Needle=针峰; Saddle=鞍峰; Stair=梯峰")

WOMEN = _pairs("""
Mira=米拉; Oda=奥达; Tessa=泰莎; Ilse=伊尔莎; Runa=露娜; Hanne=汉娜; Petra=佩特拉; Sunniva=苏妮娃; Clea=克莱娅
Brida=布丽达; Edda=埃达; Lotte=洛特; Marit=玛丽特; Nessa=内莎; Orla=奥拉; Sabine=萨宾; Thea=西娅; Vera=薇拉
Wilma=威尔玛; Yrsa=于尔莎; Agda=阿格达; Dorte=多尔特; Freya=芙蕾雅; Greta=格蕾塔
""")
MEN = _pairs("""
Anselm=安塞姆; Bertil=贝蒂尔; Caspar=卡斯帕; Doran=多兰; Emeric=埃默里克; Florian=弗洛里安; Gideon=吉迪恩; Halvor=哈尔沃
Ivo=伊沃; Joren=约伦; Konrad=康拉德; Linus=莱纳斯; Magnus=马格努斯; Nils=尼尔斯; Oswin=奥斯温; Piers=皮尔斯
Quentin=昆廷; Rufus=鲁弗斯; Stellan=斯特兰; Tobias=托拜厄斯; Ulric=乌尔里克; Viggo=维戈; Wendel=温德尔; Yorick=约里克
""")
SURNAMES = _pairs("""
Calloway=卡洛韦; Thistlewood=西斯尔伍德; Marrin=马林; Oakes=奥克斯; Pendry=彭德里; Varga=瓦尔加; Quist=奎斯特
Brandt=勃兰特; Loxley=洛克斯利; Fairweather=费尔韦瑟; Holloway=霍洛韦; Ketteridge=凯特里奇; Ravn=拉文; Sorrel=索雷尔
Tindall=廷德尔; Umberly=安伯利; Vane=文恩; Whitlock=惠特洛克; Yardley=亚德利; Zoll=佐尔; Ambrose=安布罗斯
Birdsall=伯索尔; Crabtree=克拉布特里; Dunmore=邓莫尔; Eastlake=伊斯特莱克; Finch=芬奇; Goodenough=古迪纳夫
Harker=哈克; Inglewood=英格尔伍德; Jessop=杰索普; Kittow=基托; Larkin=拉金; Mossman=莫斯曼; Nightingale=南丁格尔
Osgood=奥斯古德; Plover=普洛弗; Quarles=夸尔斯; Rook=鲁克; Sparrow=斯帕罗; Tarrant=塔兰特
""")

BRIDGES = _pairs("""
Candle=烛; Weaver's=织工; Miller's=磨坊; Parrot=鹦鹉; Seven Sisters'=七姐妹; Beggar's=乞丐; Drummer's=鼓手; Copper=铜
Wedding=婚礼; Quarrel=争吵; Echo=回声; Toll=收费; Sparrow=麻雀; Midnight=午夜; Ropewalk=绳坊; Pilgrim's=朝圣者
Tailor's=裁缝; Apple=苹果; Widow's=寡妇; Broken Oar=断桨; Mirror=镜; Fiddler's=提琴手; Barley=大麦; Frost=霜
Ferryman's=船夫; Lion=狮; Salt=盐; Clockmaker's=钟匠; Otter=水獭; Pepper=胡椒; Bishop's=主教; Willow=柳; Goose=鹅
Lamplighter's=点灯人; Duchess=公爵夫人; Cobbler's=鞋匠; Fog=雾; Three Coins=三枚硬币; Juniper=杜松; Rain=雨
Whistling=口哨; Hat=帽子; Printer's=印刷匠; Swallow=燕子
""")
FESTIVAL_FIRST = _pairs("Night=之夜; Feast=盛宴; Day=日; Week=周; Fair=集市")
FESTIVAL_LAST = _pairs("""
Lanterns=灯笼; Small Boats=小船; Borrowed Hats=借帽; Lost Keys=失钥; the First Apple=初苹果; Silent Bells=静钟
Long Spoons=长勺; the Returning Geese=归雁; Paper Kites=纸鸢; Old Quarrels=旧怨
""")
BIRD_FIRST = _pairs("""
ash-throated=灰喉; copper-backed=铜背; blue-capped=蓝冠; lesser=小; ringed=环颈; moon-tailed=月尾; salt=盐; whistling=啸
speckled=斑; hooded=兜帽; crested=凤头; white-browed=白眉
""")
BIRD_LAST = _pairs(
    "dipper=河乌; warbler=莺; tern=燕鸥; finch=雀; rail=秧鸡; owl=鸮; plover=鸻; thrush=鸫"
)
INSTRUMENTS = _pairs("""
velharp=维尔琴; tambrel=坦布雷尔; corrolin=科罗林琴; dulcane=杜尔坎; harrowpipe=哈罗笛; murmurin=默默林; ossaphone=奥萨管
pellhorn=佩尔号; quaverel=颤音琴; rillflute=溪笛; sandrum=沙鼓; thessaline=泰萨琳; umbrel=安布雷琴; vaskin=瓦斯金
wendhorn=温德号; zitherine=齐瑟琳; brassel=布拉塞尔; chimbrel=钟布雷尔; drovepipe=牧笛; ellhorn=埃尔号; fennelflute=茴香笛
glasswind=玻璃风琴; hollowdrum=空心鼓; ivorel=伊沃雷尔; jangler=叮当器; kestrine=凯斯特琳; lorrelay=洛雷莱; mothharp=蛾琴
nightreed=夜簧; oboline=奥博林; reedling=小簧管; stonebell=石钟; tidehorn=潮号; windrum=风鼓; yarling=亚林琴; squalpipe=飑笛
""")
DISH_FIRST = _pairs(
    "smoked=烟熏; salted=盐渍; honeyed=蜜汁; burnt=焦香; pickled=腌; black=黑; golden=金黄; bitter=苦味"
)
DISH_LAST = _pairs("""
eel pie=鳗鱼派; barley cake=大麦糕; quince tart=榅桲挞; crab soup=蟹汤; onion bread=洋葱面包; goose stew=炖鹅
plum pudding=李子布丁; mussel broth=贻贝汤; cheese fritter=奶酪炸饼; fig loaf=无花果面包
""")
SHIP_FIRST = _pairs("""
Patient=耐心; Merry=快乐; Borrowed=借来的; Second=第二; Obstinate=固执; Velvet=天鹅绒; Honest=诚实; Northern=北方
Drowsy=瞌睡; Gilded=镀金; Lucky=幸运; Thirsty=口渴
""")
SHIP_LAST = _pairs("""
Heron=苍鹭; Kettle=水壶; Widow=寡妇; Lantern=灯笼; Cousin=表亲; Otter=水獭; Bishop=主教; Thimble=顶针; Comet=彗星
Goose=鹅
""")
BOOK_FIRST = _pairs("""
Salt=盐; Winter=冬日; Glass=玻璃; Sleepless=不眠的; Crooked=歪斜的; Seventh=第七; Paper=纸; Northern=北方; Unfinished=未完成的
Blue=蓝色
""")
BOOK_LAST = _pairs("""
Almanac=历书; Ledger=账本; Garden=花园; Compass=罗盘; Orchard=果园; Staircase=楼梯; Letters=书信; Harbour=港湾
Dictionary=词典; Clock=时钟
""")
LIGHTHOUSES = _pairs("""
Gull=海鸥; Anvil=铁砧; Old Tom=老汤姆; Seal=海豹; Needle's Eye=针眼; Farewell=告别; Crab=螃蟹; Candlewick=烛芯
Last Inn=最后客栈; Saint Odo=圣奥多; Ravel=乱线; Cormorant=鸬鹚; Split Rock=裂岩; Maiden=少女; Thunder=雷鸣; Sugarloaf=糖山
Ladder=梯子; Bellows=风箱; Wrecker's=捞船人; Pinch=窄口; Marigold=金盏花; Grey Dog=灰狗; Tern=燕鸥; Whale=鲸鱼
""")

CRAFTS = _pairs("""
copper bells=铜钟; sailcloth=帆布; blue glass=蓝玻璃; felt hats=毡帽; pocket clocks=怀表; rope=绳索; walnut furniture=胡桃木家具
beeswax candles=蜂蜡蜡烛; green pottery=绿陶; fishing nets=渔网; playing cards=纸牌; wool blankets=羊毛毯; ink=墨水
silver buttons=银纽扣; salt cheese=咸奶酪; paper lanterns=纸灯笼; cider=苹果酒; tin soldiers=锡兵; umbrellas=雨伞
keys=钥匙; dried figs=无花果干; lace=花边; maps=地图; wooden shoes=木鞋
""")
EMBLEMS = _pairs("""
a heron=苍鹭; a burning candle=燃烧的蜡烛; two crossed oars=两支交叉的桨; a sleeping fox=熟睡的狐狸; a ladder=梯子; an open hand=张开的手
three acorns=三颗橡子; a broken wheel=断裂的车轮; a hare=野兔; a key=钥匙; a white tower=白塔; a fish with a ring=衔戒指的鱼
a goose in flight=飞翔的鹅; a single boot=一只靴子; a lantern=灯笼; a beehive=蜂巢; a dancing bear=跳舞的熊; a bell=钟
a snail=蜗牛; a half moon=半轮月亮; an anchor=锚; a pear tree=梨树; a raven=渡鸦; a loaf of bread=一条面包
""")
MOUTHS = _pairs("""
Bell Bay=钟湾; Lake Orsin=奥尔辛湖; Heron Sound=苍鹭海峡; the Gulf of Lamps=灯湾; Lake Mirrow=米罗湖; Widow's Bay=寡妇湾
the Amber Sea=琥珀海; Cutler's Bay=刀匠湾; Lake Tolm=托尔姆湖; the Bay of Thieves=盗贼湾
""")
CHARACTERS = _pairs("""
slow and brown=缓慢而浑黄; fast and green=湍急而碧绿; clear as gin=清澈如酒; black with peat=因泥炭而乌黑; milky with chalk=因白垩而乳白
cold in every season=四季冰冷; shallow and noisy=浅而喧闹; deep and silent=深而寂静; red after rain=一下雨就变红
crooked as a dog's leg=弯曲如狗腿; warm enough to bathe in=暖得可以沐浴; full of small islands=布满小岛
""")
FISH = _pairs("""
trout=鳟鱼; pike=狗鱼; eels=鳗鱼; salmon=鲑鱼; perch=鲈鱼; crayfish=小龙虾; grayling=茴鱼; carp=鲤鱼; lampreys=七鳃鳗
char=红点鲑
""")
ROCKS = _pairs("""
granite=花岗岩; slate=板岩; basalt=玄武岩; limestone=石灰岩; red sandstone=红砂岩; marble=大理石; quartzite=石英岩; chalk=白垩
gneiss=片麻岩; serpentine=蛇纹岩
""")
PETS = _pairs("""
a one-eyed cat=一只独眼的猫; a tame crow=一只驯服的乌鸦; two greyhounds=两条灵缇犬; a tortoise=一只乌龟; a lame donkey=一头跛脚的驴
a goat=一只山羊; a parrot=一只鹦鹉; a family of hedgehogs=一窝刺猬; a white mouse=一只小白鼠; an old pike=一条老狗鱼
a deaf spaniel=一条耳聋的长耳猎犬; seven hens=七只母鸡; a fox=一只狐狸; an otter=一只水獭; a blind horse=一匹盲马
a jackdaw=一只寒鸦; a snail collection=一屋子蜗牛; a three-legged dog=一只三条腿的狗; a swarm of bees=一群蜜蜂; a lazy owl=一只懒惰的猫头鹰
""")
PROFESSIONS = _pairs("""
architect=建筑师; climber=登山家; instrument maker=乐器匠; cook=厨师; sea captain=船长; writer=作家; lighthouse keeper=灯塔看守人
painter=画家; mapmaker=制图师; botanist=植物学家; clockmaker=钟表匠; judge=法官; composer=作曲家; smuggler=走私者; astronomer=天文学家
""")
MATERIALS = _pairs("""
grey granite=灰色花岗岩; red brick=红砖; oak beams=橡木梁; wrought iron=锻铁; white limestone=白色石灰岩; black slate=黑色板岩
cast iron=铸铁; larch timber=落叶松木; yellow sandstone=黄色砂岩; ship's planks=船板
""")
HONOURS = _pairs("""
a shipwreck without victims=一场无人遇难的沉船; the end of a long drought=一场漫长干旱的结束; a baker who fed the town=一位养活全镇的面包师
a lost cow that came home=一头走失又回家的母牛; the burning of the old mill=烧毁旧磨坊的大火; a treaty signed in a kitchen=一份在厨房签订的条约
the first printed map=第一张印刷的地图; a duel that nobody attended=一场无人到场的决斗; a winter of wolves=一个狼群出没的冬天
the arrival of the post coach=邮车的到来; a wedding in a storm=一场暴风雨中的婚礼; a mayor who told the truth=一位说了真话的镇长
the great herring catch=一次鲱鱼大丰收; a bell that rang by itself=一口自己响起来的钟; the repair of the town clock=镇上大钟的修复
three days of fog=三天大雾; a stolen cheese=一块被偷的奶酪; a child who stopped a flood=一个阻止洪水的孩子
a tax that was never paid=一笔从未缴纳的税; the last dragon story=最后一个龙的故事
""")
MONTHS = _pairs("""
January=一月; February=二月; March=三月; April=四月; May=五月; June=六月; July=七月; August=八月; September=九月
October=十月; November=十一月; December=十二月
""")
EGGS = _pairs("""
pale green=淡绿色; sky blue=天蓝色; chalk white=白垩色; brick red=砖红色; cream=奶油色; olive brown=橄榄褐色; almost black=近黑色
pink=粉色; sulphur yellow=硫黄色; lilac=淡紫色
""")
FOODS = _pairs("""
beetles=甲虫; rowan berries=花楸果; small crabs=小蟹; moths=飞蛾; thistle seeds=蓟籽; snails=蜗牛; minnows=小鱼; spiders=蜘蛛
barley=大麦; worms=蚯蚓; ants=蚂蚁; sloes=黑刺李
""")
CALLS = _pairs("""
a squeaking gate=吱呀作响的门; a boiling kettle=烧开的水壶; a man clearing his throat=清嗓子的人; a dropped spoon=掉在地上的勺子
a distant fiddle=远处的提琴; two stones knocked together=两块石头相击; a child laughing=孩子的笑声; a cork leaving a bottle=拔瓶塞的声音
a slow saw=缓慢的锯声; a wet finger on glass=湿手指划过玻璃; a question asked twice=问了两遍的问题; a purring cat=打呼噜的猫
a rusty pump=生锈的水泵; a sneeze=一声喷嚏; coins in a pocket=口袋里的硬币; a creaking mast=嘎吱作响的桅杆
""")
NESTS = _pairs("""
under bridges=桥下; in old chimneys=旧烟囱里; on bare rock=裸岩上; in reed beds=芦苇丛中; in rabbit holes=兔洞里; on church towers=教堂塔上
in apple trees=苹果树上; among thistles=蓟丛中; in abandoned boats=废弃的船里; on sea cliffs=海崖上
""")
SOUNDS = _pairs("""
rain on a tin roof=雨打铁皮屋顶; a polite argument=一场礼貌的争论; bees in a church=教堂里的蜜蜂; a cow in a tunnel=隧道里的牛
wind in a keyhole=锁孔里的风; a choir heard through a wall=隔墙听到的合唱; a sigh=一声叹息; ice breaking=冰面开裂; a very small thunderstorm=一场极小的雷雨
a door in a dream=梦中的门; honey being poured=慢慢倒出的蜂蜜; geese at a great height=高空的雁
""")
SECRETS = _pairs("""
nutmeg=肉豆蔻; seaweed=海藻; juniper berries=杜松子; burnt sugar=焦糖; pine honey=松蜜; mustard seed=芥菜籽; dried rose petals=干玫瑰花瓣
black beer=黑啤酒; sorrel=酸模; smoked salt=熏盐; walnut oil=核桃油; fennel=茴香; caraway=葛缕子; lemon peel=柠檬皮
cold tea=冷茶; wild garlic=野蒜
""")
SEASONS = _pairs("""
at midsummer=仲夏; in the first frost=初霜时; at harvest=收获时节; on winter Sundays=冬季的星期日; in lambing time=产羔时节
on rainy days=雨天; at weddings=婚礼上; at funerals=葬礼上
""")
COMPANIONS = _pairs("""
sour cream=酸奶油; brown bread=黑面包; cider=苹果酒; boiled potatoes=煮土豆; pickled cabbage=腌卷心菜; plum brandy=李子白兰地
green apples=青苹果; hot mustard=辣芥末; sheep's cheese=羊奶酪; buttered beans=黄油豆
""")
SHIP_TYPES = _pairs("""
schooner=纵帆船; brig=双桅横帆船; ketch=双桅小帆船; cutter=独桅快船; barque=三桅帆船; paddle steamer=明轮汽船; ferry=渡船
whaler=捕鲸船
""")
CARGOES = _pairs("""
pianos=钢琴; salt=盐; oranges=橙子; mail=邮件; window glass=窗玻璃; ice=冰; sheep=绵羊; copper ore=铜矿石; tea=茶叶; bricks=砖
umbrellas=雨伞; church bells=教堂大钟; cider=苹果酒; wool=羊毛; printing paper=印刷纸; live geese=活鹅
""")
SUBJECTS = _pairs("""
the habits of fog=雾的习性; a family of ferrymen=一个船夫家族; the art of waiting=等待的艺术; a murder in a bakery=一桩面包房谋杀案
the education of goats=山羊的教育; a voyage round the island=一次环岛航行; the history of hats=帽子的历史; forty ways to cook eel=鳗鱼的四十种做法
a love affair by letter=一段书信恋情; the weather of dreams=梦的天气; a war over a pear tree=一棵梨树引发的战争; the stars above the moors=荒原上的星空
a thief with good manners=一个彬彬有礼的小偷; the language of bells=钟的语言; a house with too many doors=一座门太多的房子; how to lose at cards=怎样打牌才会输
""")
LIGHTS = _pairs("white=白色; red=红色; green=绿色; amber=琥珀色; blue=蓝色; violet=紫色")
