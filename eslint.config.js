import js from '@eslint/js';
import tseslint from 'typescript-eslint';

/**
 * The walls of the house. Imports go one way: cli -> extensions, fs -> index -> store.
 * ARCHITECTURE.md tells the same story in words; this is what holds it.
 */
const FOLDERS = ['cli', 'extensions', 'fs', 'index', 'store'];
const MAY_IMPORT = {
  store: [],
  extensions: ['store'],
  index: ['store'],
  fs: ['index', 'store'],
  cli: ['extensions', 'fs', 'index', 'store'],
};

const wall = (folder, allowed) => {
  const forbidden = FOLDERS.filter((other) => other !== folder && !allowed.includes(other));
  return {
    files: [`${folder}/**/*.ts`],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            {
              regex: `^(\\.\\./)+(${[...forbidden, 'test', 'bench'].join('|')})/`,
              message: `${folder}/ may import only ${allowed.join(', ') || 'nothing of ours'} (ARCHITECTURE.md, "The house")`,
            },
            ...(folder === 'store'
              ? [{ regex: '^better-sqlite3$', message: 'nothing under store/ opens a database (ARCHITECTURE.md)' }]
              : []),
          ],
        },
      ],
    },
  };
};

/** fs/protocol is bytes only: it knows the FUSE wire format and nothing else of ours. */
const protocolWall = {
  files: ['fs/protocol/**/*.ts'],
  rules: {
    'no-restricted-imports': [
      'error',
      { patterns: [{ regex: '^\\.\\./', message: 'fs/protocol/ is bytes only and imports nothing outside itself' }] },
    ],
  },
};

export default tseslint.config(
  { ignores: ['dist/', 'node_modules/', 'coverage/'] },
  js.configs.recommended,
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: { allowDefaultProject: ['eslint.config.js'] } } },
    rules: {
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/no-confusing-void-expression': [
        'error',
        { ignoreArrowShorthand: true, ignoreVoidReturningFunctions: true },
      ],
      // A lock is held by its name going out of scope; an underscore says that the value itself is not looked at.
      '@typescript-eslint/no-unused-vars': ['error', { varsIgnorePattern: '^_', argsIgnorePattern: '^_' }],
      '@typescript-eslint/no-non-null-assertion': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
    },
  },
  { files: ['**/*.js', '**/*.cjs'], ...tseslint.configs.disableTypeChecked },
  {
    files: ['**/*.cjs'],
    languageOptions: {
      sourceType: 'commonjs',
      globals: Object.fromEntries(
        ['require', 'module', 'exports', '__filename', '__dirname'].map((name) => [name, 'readonly']),
      ),
    },
    rules: { '@typescript-eslint/no-require-imports': 'off' },
  },
  ...Object.entries(MAY_IMPORT).map(([folder, allowed]) => wall(folder, allowed)),
  protocolWall,
);
