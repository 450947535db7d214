import { Layout } from '../../store/layout.ts';
import { digestOf } from '../../store/digest.ts';

/** A process that sets tags one after another: `tag-child <store root> <id> <name> <count>`. */
const [, , root = '', id = '', name = '', count = '0'] = process.argv;
const layout = new Layout(root, id);
for (let i = 0; i < Number(count); i += 1) {
  await layout.setTags([`${name}-${i}`, 'latest'], { digest: digestOf(`${name}-${i}`), size: i });
}
