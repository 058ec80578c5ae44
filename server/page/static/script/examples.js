/** Dialogues to begin with, each in one language; titles are in it too. */

const EN = [
  {
    title: "Did you hear that?",
    names: {},
    lines: [
      [1, "Did you hear that?"],
      [2, "No. What was it?"],
      [1, "Somebody is reading our script aloud, and they sound exactly like us."],
      [2, "Then let us write something nice."],
    ],
  },
  {
    title: "Podcast: the first minute",
    names: { 1: "Maya", 2: "Tom" },
    lines: [
      [1, "Welcome back to Slow Radio. I am Maya, and today we talk about bread."],
      [2, "Bread? Last week it was black holes."],
      [1, "And which of the two did you have for breakfast?"],
      [2, "Fair enough. So, why does a loaf from the bakery taste better than mine?"],
      [1, "Time, mostly. They let the dough rest for a day. You let it rest for one episode of a series."],
      [2, "It was a double episode."],
    ],
  },
  {
    title: "Radio play: the lighthouse",
    names: { 1: "Keeper", 2: "Sailor", 3: "Child" },
    lines: [
      [3, "Grandfather, there is a boat down there. It has no lights."],
      [1, "In this weather? Fetch the lamp, quick."],
      [2, "Ahoy! Is anybody up there? We are taking water!"],
      [1, "Keep to the left of the rocks! To the left!"],
      [3, "They see us. Grandfather, they are turning!"],
    ],
  },
];

const ZH = [
  {
    title: "播客：开场一分钟",
    names: { 1: "小雨", 2: "大林" },
    lines: [
      [1, "欢迎回到《慢慢聊》，我是小雨。今天我们聊一聊失眠。"],
      [2, "这个我有发言权，昨天我三点还没睡着。"],
      [1, "那你躺在床上都在想什么？"],
      [2, "想今天要来录节目，得早点睡。"],
      [1, "好吧，看来问题出在我身上。"],
    ],
  },
  {
    title: "广播剧：末班车",
    names: { 1: "司机", 2: "乘客" },
    lines: [
      [1, "姑娘，终点站到了，该下车了。"],
      [2, "师傅，这趟车还回去吗？"],
      [1, "末班车，不回了。你坐过站了吧？"],
      [2, "没有，我就是想看看，这条路的尽头是什么样子。"],
    ],
  },
];

const OTHERS = {
  ja: {
    title: "駅前の喫茶店",
    names: { 1: "店主", 2: "客" },
    lines: [
      [1, "いらっしゃいませ。今日も雨ですね。"],
      [2, "ええ。でも、雨の日のコーヒーは好きなんです。"],
      [1, "では、いつもの席へどうぞ。"],
    ],
  },
  de: {
    title: "Am Bahnhof",
    names: { 1: "Anna", 2: "Jonas" },
    lines: [
      [1, "Entschuldigung, fährt dieser Zug nach Köln?"],
      [2, "Das hoffe ich sehr. Ich sitze schon seit einer Stunde darin."],
      [1, "Dann warten wir eben zusammen."],
    ],
  },
  es: {
    title: "La receta de la abuela",
    names: { 1: "Lucía", 2: "Abuela" },
    lines: [
      [1, "Abuela, ¿cuánta sal lleva la tortilla?"],
      [2, "La que pida."],
      [1, "¿Y cómo sé cuánta pide?"],
      [2, "Escuchando, hija. Cocinar es escuchar."],
    ],
  },
};

export const NATIVE = { en: "English", zh: "中文", ja: "日本語", de: "Deutsch", es: "Español" };

/** @returns {{language: string, title: string, names: object, lines: [number, string][]}[]} */
export function examples() {
  const all = [["en", EN], ["zh", ZH], ...Object.entries(OTHERS).map(([language, one]) => [language, [one]])];
  return all.flatMap(([language, list]) => list.map((one) => ({ ...one, language: NATIVE[language] })));
}

