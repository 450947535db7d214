import test from 'ava';

import { parseYaml, renderNewConfig } from '../../../fs/workspace/config-file.ts';
import { readPlainYaml } from '../../../fs/workspace/plain-yaml.ts';
import { Random } from '../../fixtures/random.ts';

const WRITTEN_BY_HAND = `# comment
id: ws-0123456789abcdef
head: sha256:${'0'.repeat(64)}

task: fix the login flow
store: ~/stores/$NAME
ignore:
- '*.log'
- "tmp/**"
layers:
  # nested comment
  - name: deps
    patterns:
      - '**/node_modules/**'
    catch_all: false
env:
  A_B: 1.10
`;

test('readPlainYaml() reads what bento writes and what people add', (t) => {
  for (const text of [renderNewConfig({ id: 'ws-1', task: 'a task', store: '/store' }), WRITTEN_BY_HAND]) {
    t.not(readPlainYaml(text), undefined);
    t.deepEqual(readPlainYaml(text), parseYaml(text).toJS());
  }
});

test('readPlainYaml() leaves everything that takes a parser to the parser', (t) => {
  const others = [
    '',
    'a: null',
    'a: ~',
    'a:',
    'a: b: c',
    'a: b #c',
    'a: |\n  text',
    'a: [b]',
    'a: {b: c}',
    'a: &x b',
    'a: *x',
    "a: 'it''s'",
    'a: "\\n"',
    'a: b\n  c',
    'a: b\na: c',
    'a: b\n  c: d',
    '- a',
    '---\na: b',
    'a: b\tc',
    'a: é',
    '__proto__: a',
    'a: b\r\n',
  ];
  for (const text of others) t.is(readPlainYaml(text), undefined, text);
});

const PIECES = [
  ...['a', 'id: x', 'head: sha256:abc', 'store: ~/x', '- a', '- a: b', '-  a', '  b: c', '    b: c', "t: 'it''s'"],
  ...["t: 'x y'", 't: "x"', 't: "x\\n"', 't: null', 't: ~', 't: true', 't: 1.10', 't: a #b', 't: a: b', 't: -', '# c'],
  ...[
    '',
    '  # c',
    'k:',
    '  - x',
    '  - x: y',
    '    z: w',
    'list:',
    'null: a',
    't: [a]',
    't: |',
    't: >',
    '  text',
    '---',
  ],
  ...['t: a b', 't: a  b', 't: a:', 't: a:b', 't: a,b', 't: .', 't: $HOME/x', 't: 0x1', 't: "a b" c', '"k": v', '? a'],
  ...[
    '<<: a',
    't:  a',
    't : a',
    '- - a',
    '-',
    't: a---',
    't: ...',
    "t: 'a' ",
    'x: https://a.b/c',
    'x: ab: c',
    '- a b: c',
  ],
];

test('readPlainYaml() agrees with the parser on every text it reads', (t) => {
  const random = new Random(1);
  let readCount = 0;
  for (let i = 0; i < 20_000; i += 1) {
    const text = Array.from({ length: 1 + random.below(6) }, () => random.pick(PIECES)).join('\n');
    const read = readPlainYaml(text);
    if (read === undefined) continue;
    readCount += 1;
    t.deepEqual(read, parseYaml(text).toJS(), text);
  }
  t.true(readCount > 500);
});
