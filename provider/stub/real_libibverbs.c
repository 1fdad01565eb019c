/* An empty library whose SONAME is the absolute path of the real libibverbs. What is linked against it names the real
 * library by path among its dependencies, so that both can be loaded although they share a SONAME. */
extern const char tbt_stub_of_real_libibverbs;
const char tbt_stub_of_real_libibverbs = 0;
