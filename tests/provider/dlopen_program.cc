// Opens libibverbs as programs do that do not link it, looks functions up with and without a
// version, and prints in which file each was found.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>

namespace {

struct Wanted {
  const char* name;
  const char* version;
};

constexpr Wanted kWanted[] = {
    {"ibv_get_device_list", "IBVERBS_1.1"},     {"ibv_reg_mr_iova2", "IBVERBS_1.8"},
    {"ibv_create_comp_channel", "IBVERBS_1.0"}, {"ibv_qp_to_qp_ex", "IBVERBS_1.6"},
    {"ibv_fork_init", "IBVERBS_1.1"},           {"ibv_event_type_str", "IBVERBS_1.1"},
    {"ibv_ack_cq_events", "IBVERBS_1.1"},       {"ibv_query_ece", "IBVERBS_1.10"},
};

const char* file_of(void* address) {
  Dl_info info{};
  return dladdr(address, &info) != 0 ? info.dli_fname : "nowhere";
}

}  // namespace

int main() {
  void* library = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    std::printf("%s\n", dlerror());
    return 1;
  }
  for (const Wanted& wanted : kWanted) {
    void* plain = dlsym(library, wanted.name);
    void* versioned = dlvsym(library, wanted.name, wanted.version);
    if (plain == nullptr || plain != versioned) {
      std::printf("%s: dlsym %p dlvsym %p\n", wanted.name, plain, versioned);
      return 1;
    }
    std::printf("%s %s\n", wanted.name, file_of(plain));
  }
  // Programs close the library while our threads may live in it.
  dlclose(library);
  return dlopen("libibverbs.so.1", RTLD_NOW | RTLD_NOLOAD) != nullptr ? 0 : 1;
}
