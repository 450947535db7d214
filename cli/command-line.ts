/** Where the command's name stands among the words, found before the command and its flags are known. */
export interface CommandLine {
  /** The first words that are not flags: enough for `help`, a group and a command. */
  words: string[];
  /** `--version` stands before them. */
  wantsVersion: boolean;
  /** Everything but the first `count` of `words`. */
  without(count: number): string[];
}

const WORDS_MAX = 3;
const SWITCHES = ['--json', '--verbose', '--help', '--version', '-v', '-h'];

/** Flags may stand before the command; one that only the command knows is taken to have a value, as cobra does. */
export function readCommandLine(all: readonly string[]): CommandLine {
  const positions: number[] = [];
  let wantsVersion = false;
  for (let at = 0; at < all.length && positions.length < WORDS_MAX; at++) {
    const word = all[at] ?? '';
    if (word === '--') break;
    if (word === '--version' && positions.length === 0) wantsVersion = true;
    if (!word.startsWith('-') || word === '-') positions.push(at);
    else if (takesNextWord(word)) at++;
  }
  return {
    words: positions.map((at) => all[at] ?? ''),
    wantsVersion,
    without: (count) => all.filter((_, at) => !positions.slice(0, count).includes(at)),
  };
}

function takesNextWord(flag: string): boolean {
  if (SWITCHES.includes(flag) || flag.includes('=')) return false;
  return flag.startsWith('--') || flag.length === 2; // `-mvalue` has its value with it
}
