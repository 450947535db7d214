import test from 'ava';

import { isNewer, programVersion } from '../../store/version.ts';

test('isNewer() compares three numbers', (t) => {
  t.true(isNewer('0.2.0', '0.1.9'));
  t.true(isNewer('1.0.0', '0.99.99'));
  t.true(isNewer('0.1.10', '0.1.9'));
  t.false(isNewer('0.1.0', '0.1.0'));
  t.false(isNewer('0.1.0', '0.2.0'));
  t.false(isNewer('0.1.0-beta', '0.1.0'));
  t.false(isNewer('nonsense', '0.1.0'));
});

test('programVersion() is that of the package', (t) => {
  t.regex(programVersion(), /^\d+\.\d+\.\d+$/);
});
