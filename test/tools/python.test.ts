import { execFileSync } from 'node:child_process';

import { writeFiles } from '../fixtures/command-checks.ts';
import { testIf } from '../fixtures/external-tools.ts';
import { shell, testInForks } from './tool-runs.ts';

/** The interpreter itself: what is on the PATH may be a script that needs the user's home. */
const python = run('python3', ['-c', 'import sys; print(sys.executable)']);
const hasPip = python !== undefined && run(python, ['-c', 'import ensurepip, venv; print(1)']) !== undefined;
const TITLE = 'a Python venv with pip installs a wheel, runs it and takes it away again';

if (!hasPip) testIf(false, 'python3 has no ensurepip (apt-get install python3-venv)')(TITLE, (t) => t.fail());
else {
  testInForks(TITLE, [], {
    prepare: ({ dir }) => {
      writeFiles(dir, { 'make-wheel.py': MAKE_WHEEL, 'pkg/greet/__init__.py': 'def main():\n    print("hello")\n' });
    },
    work: async (place) => await shell(place, WORK, { PYTHON: python, PYTHONHASHSEED: '0', SOURCE_DATE_EPOCH: '1' }),
    // compiled files hold the time of their source
    ignore: ['venv'],
  });
}

/** A wheel is a zip file with three files of metadata. @see PEP 427 */
const MAKE_WHEEL = `
import zipfile
info = 'greet-1.0.dist-info'
files = {
    'greet/__init__.py': open('pkg/greet/__init__.py').read(),
    f'{info}/METADATA': 'Metadata-Version: 2.1\\nName: greet\\nVersion: 1.0\\n',
    f'{info}/WHEEL': 'Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n',
    f'{info}/entry_points.txt': '[console_scripts]\\ngreet = greet:main\\n',
}
record = ''.join(f'{name},,\\n' for name in [*files, f'{info}/RECORD'])
with zipfile.ZipFile('greet-1.0-py3-none-any.whl', 'w') as wheel:
    for name, text in {**files, f'{info}/RECORD': record}.items():
        wheel.writestr(zipfile.ZipInfo(name, (2000, 1, 1, 0, 0, 0)), text)
`;

const WORK = `
"$PYTHON" make-wheel.py
"$PYTHON" -m venv venv
. venv/bin/activate
pip --quiet --disable-pip-version-check install --no-index ./greet-1.0-py3-none-any.whl
greet
pip --disable-pip-version-check list --format=freeze
python -c 'import greet, sys; print(greet.__file__, sys.prefix)'
pip --quiet --disable-pip-version-check uninstall --yes greet
pip --disable-pip-version-check list --format=freeze
find venv -printf '%P %y %m %l\\n' | sort
`;

/** @returns what it printed; undefined when it is not there, or fails */
function run(program: string, args: readonly string[]): string | undefined {
  try {
    return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return undefined;
  }
}
