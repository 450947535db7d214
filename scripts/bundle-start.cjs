/**
 * What stands in the place of each bundle: runs the file of its name in code/ with what V8 made of it at build time, which
 * saves reading through a megabyte of JavaScript at each start. Another V8 than that of the build ignores it.
 */
'use strict';

const { readFileSync } = require('node:fs');
const path = require('node:path');
const { Script } = require('node:vm');

const file = path.join(__dirname, 'code', path.basename(__filename));
const source = readFileSync(file, 'latin1'); // it is ASCII
const script = new Script(source, { filename: file, cachedData: readCache(`${file}.cache`) });

/** @returns undefined where a build was interrupted */
function readCache(cache) {
  try {
    return readFileSync(cache);
  } catch {
    return undefined;
  }
}

script.runInThisContext()(require, module, exports, __filename, __dirname);
