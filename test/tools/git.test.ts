import { makeManyFiles } from '../fixtures/many-files.ts';
import { shell, testInForks } from './tool-runs.ts';

const FILE_COUNT = 400;
/** Every commit has the same name wherever and whenever it is made, and packs come out the same. */
const ENV = {
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_AUTHOR_NAME: 'b',
  GIT_AUTHOR_EMAIL: 'b@b',
  GIT_COMMITTER_NAME: 'b',
  GIT_COMMITTER_EMAIL: 'b@b',
  GIT_AUTHOR_DATE: '1700000000 +0000',
  GIT_COMMITTER_DATE: '1700000000 +0000',
  GIT_CONFIG_COUNT: '3',
  GIT_CONFIG_KEY_0: 'pack.threads',
  GIT_CONFIG_VALUE_0: '1',
  GIT_CONFIG_KEY_1: 'init.defaultBranch',
  GIT_CONFIG_VALUE_1: 'main',
  GIT_CONFIG_KEY_2: 'safe.directory',
  GIT_CONFIG_VALUE_2: '*',
};

const MAKE_REPOSITORY = `
git init -q repo
cd repo
git add -A
git commit -q -m all
git tag -a -m one v1
git gc -q
echo loose > loose.txt
git add loose.txt
git commit -q -m loose
`;

/** Branches, merges, a rebase, work put aside, a second work tree, and going back and forth. */
const WORK_IN_REPOSITORY = `
git status --porcelain
git checkout -q -b feature
for file in node_modules/package-0000/*.js; do echo '// feature' >> "$file"; done
git mv main.js index.js
git rm -q README.md
git commit -q -a -m feature
git checkout -q main
mkdir -p src && echo main > src/main.txt && git add src && git commit -q -m main
for turn in 1 2 3; do git checkout -q feature; git status --porcelain; git checkout -q main; git status --porcelain; done
git merge -q -m merged feature
git checkout -q -b rebased v1
echo rebased > node_modules/rebased.txt && git add -A && git commit -q -m rebased
git rebase -q main
git checkout -q main
echo unsaved >> index.js && echo new > new.txt
git stash push -q -u -m aside
git status --porcelain
git stash pop -q
git status --porcelain
git stash push -q -u -m aside
git worktree add -q ../other rebased
echo other > ../other/other.txt
git -C ../other add other.txt
git -C ../other commit -q -m other
git worktree list | wc -l
git worktree remove ../other
git reset -q --hard v1
git reset -q --hard ORIG_HEAD
git clean -qfdx
git gc -q --prune=now
git fsck --full --strict --no-dangling
git log --all --graph --format='%H %D %s'
git ls-files -s | git hash-object --stdin
git count-objects -v
git status --porcelain
`;

const INDEXES = ['repo/.git/index', 'clone/.git/index']; // with inode numbers and times of change

testInForks('git clones, commits, switches, rebases, stashes, collects and checks a repository', ['git'], {
  prepare: async (place) => {
    makeManyFiles(`${place.dir}/repo`, { fileCount: FILE_COUNT });
    await shell(place, MAKE_REPOSITORY, ENV);
  },
  work: async (place) => {
    const inSaved = await shell(place, `cd repo\n${WORK_IN_REPOSITORY}`, ENV);
    const inClone = await shell(place, `git clone -q repo clone\ncd clone\n${WORK_IN_CLONE}`, ENV);
    return inSaved + inClone;
  },
  ignore: INDEXES,
});

const WORK_IN_CLONE = `
git checkout -q -b more v1
echo more >> main.js
git commit -q -a -m more
git push -q origin more
git checkout -q main
git pull -q --no-rebase
git clone -q --no-local . ../copied
git -C ../copied fsck --full --strict
rm -rf ../copied
git gc -q --prune=now --aggressive
git fsck --full --strict
git log --all --format='%H %D'
`;
