// Every allocation of every verb fails once: the first, then the second, and so on until the verb
// makes none any more. Each time it says ENOMEM, leaves nothing behind, and works when it is called
// again. On a running fabric, through the front door, with the real transport below (live_test.py).
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "failing_memory.h"
#include "live.h"

namespace tbt::provider_live {
namespace {

using failing_memory::Whose;

constexpr uint32_t kAllocationsMost = 100000;

// What is 0 or ENOMEM when it is called with the allocator failing, and undone after each success.
struct Verb {
  const char* name;
  std::function<int()> call;
  std::function<void()> undo = [] {};
  // The real library below does without some of its own.
  bool may_succeed = false;
};

// For verbs that return a pointer.
template <typename T>
int made(T* object) {
  return object != nullptr ? 0 : errno;
}

// How many of the verb's allocations have failed.
uint32_t fail_each(const Verb& verb) {
  uint32_t nth = 1;
  for (; nth < kAllocationsMost; ++nth) {
    errno = 0;
    failing_memory::arm(nth);
    const int code = verb.call();
    if (!failing_memory::disarm()) {
      EXPECT_EQ(code, 0) << verb.name << ", with all its memory";
      if (code == 0) verb.undo();
      break;
    }
    EXPECT_TRUE(code == ENOMEM || (code == 0 && verb.may_succeed))
        << "errno " << code << " of " << verb.name << ", without allocation " << nth;
    if (code == 0) verb.undo();
    const int again = verb.call();
    EXPECT_EQ(again, 0) << verb.name << ", after it went without allocation " << nth;
    if (again == 0) verb.undo();
    if (testing::Test::HasFailure()) break;
  }
  std::printf("%-36s %3u allocations\n", verb.name, nth - 1);
  return nth - 1;
}

// Twice: what the first round has left to be used again is there in the second.
void expect_enomem_everywhere(const Verb& verb, uint32_t allocations_least = 1) {
  EXPECT_EQ(verb.call(), 0) << verb.name;
  verb.undo();
  EXPECT_GE(fail_each(verb), allocations_least) << verb.name;
  const int64_t before = failing_memory::live_blocks();
  fail_each(verb);
  EXPECT_EQ(failing_memory::live_blocks(), before) << verb.name << " leaks";
}

enum FirstList { kAllThere = 10, kRefused, kUnneeded, kWrongError, kNotAgain };

// In a process of its own, where nothing is loaded or attached yet.
int first_list_without(uint32_t nth) {
  const auto is_there = [](ibv_device** list, int count) { return list != nullptr && count >= 2; };
  int count = -1;
  failing_memory::arm(nth);
  ibv_device** list = ibv_get_device_list(&count);
  const int code = errno;
  if (!failing_memory::disarm()) return is_there(list, count) ? kAllThere : kWrongError;
  if (list == nullptr && (code != ENOMEM || count != 0)) return kWrongError;
  if (list != nullptr && !is_there(list, count)) return kWrongError;
  const bool refused = list == nullptr;
  if (!refused) ibv_free_device_list(list);
  list = ibv_get_device_list(&count);
  if (!is_there(list, count)) return kNotAgain;
  ibv_free_device_list(list);
  return refused ? kRefused : kUnneeded;
}

// Runs before anything else here has asked for devices.
TEST(NoMemory, AtTheFirstDeviceListOfAProcess) {
  uint32_t refused = 0;
  uint32_t nth = 1;
  for (int status = 0; nth < kAllocationsMost; ++nth) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) _exit(first_list_without(nth));
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status)) << "allocation " << nth << ": signal " << WTERMSIG(status);
    const int said = WEXITSTATUS(status);
    if (said == kAllThere) break;
    ASSERT_TRUE(said == kRefused || said == kUnneeded)
        << "allocation " << nth << ": " << (said == kNotAgain ? "not again" : "wrong error");
    refused += said == kRefused ? 1 : 0;
  }
  std::printf("%-36s %3u allocations, %u of them needed\n", "first get_device_list", nth - 1,
              refused);
  EXPECT_GT(refused, 50u) << "attaching is more than that";
}

class NoMemoryTest : public LiveTest {
 protected:
  static ibv_device* device() {
    ibv_device** list = ibv_get_device_list(nullptr);
    ibv_device* found = nullptr;
    for (ibv_device** d = list; *d != nullptr; ++d) {
      if (std::string("tbt0") == ibv_get_device_name(*d)) found = *d;
    }
    ibv_free_device_list(list);
    return found;
  }
  ibv_qp_init_attr_ex qp_attr(ibv_qp_type type, ibv_srq* srq = nullptr) const {
    ibv_qp_init_attr_ex attr{};
    attr.send_cq = attr.recv_cq = cq;
    attr.srq = srq;
    attr.qp_type = type;
    attr.cap = {.max_send_wr = 16,
                .max_recv_wr = 16,
                .max_send_sge = 2,
                .max_recv_sge = 2,
                .max_inline_data = 64};
    attr.comp_mask = IBV_QP_INIT_ATTR_PD;
    attr.pd = pd;
    return attr;
  }
};

TEST_F(NoMemoryTest, DevicesAndDomains) {
  ibv_device** list = nullptr;
  expect_enomem_everywhere({"get_device_list",
                            [&] { return made(list = ibv_get_device_list(nullptr)); },
                            [&] { ibv_free_device_list(list); }, true});
  ibv_device* tbt0 = device();
  ibv_context* opened = nullptr;
  expect_enomem_everywhere({"open_device", [&] { return made(opened = ibv_open_device(tbt0)); },
                            [&] { ibv_close_device(opened); }});
  ibv_pd* domain = nullptr;
  expect_enomem_everywhere({"alloc_pd", [&] { return made(domain = ibv_alloc_pd(context)); },
                            [&] { ibv_dealloc_pd(domain); }});
  ibv_td* thread = nullptr;
  ibv_td_init_attr td_attr{};
  expect_enomem_everywhere({"alloc_td",
                            [&] { return made(thread = ibv_alloc_td(context, &td_attr)); },
                            [&] { ibv_dealloc_td(thread); }});
  ibv_parent_domain_init_attr parent{};
  parent.pd = pd;
  expect_enomem_everywhere(
      {"alloc_parent_domain",
       [&] { return made(domain = ibv_alloc_parent_domain(context, &parent)); },
       [&] { ibv_dealloc_pd(domain); }});
}

TEST_F(NoMemoryTest, Memory) {
  ibv_mr* region = nullptr;
  const auto dereg = [&] { ibv_dereg_mr(region); };
  expect_enomem_everywhere(
      {"reg_mr",
       [&] { return made(region = ibv_reg_mr(pd, memory, 4096, IBV_ACCESS_LOCAL_WRITE)); }, dereg});
  // A full table of keys grows.
  std::vector<ibv_mr*> many;
  expect_enomem_everywhere({"reg_mr, 200 times",
                            [&] {
                              while (many.size() < 200) {
                                ibv_mr* one = ibv_reg_mr(pd, memory, 64, 0);
                                if (one == nullptr) return errno;
                                many.push_back(one);
                              }
                              return 0;
                            },
                            [&] {
                              for (ibv_mr* one : many) ibv_dereg_mr(one);
                              many.clear();
                            }},
                           200);
  ibv_mw* window = nullptr;
  expect_enomem_everywhere({"alloc_mw",
                            [&] { return made(window = ibv_alloc_mw(pd, IBV_MW_TYPE_2)); },
                            [&] { ibv_dealloc_mw(window); }});
  ibv_dm* dm = nullptr;
  ibv_alloc_dm_attr dm_attr{};
  dm_attr.length = 4096;
  expect_enomem_everywhere({"alloc_dm", [&] { return made(dm = ibv_alloc_dm(context, &dm_attr)); },
                            [&] { ibv_free_dm(dm); }});
  dm = ibv_alloc_dm(context, &dm_attr);
  expect_enomem_everywhere(
      {"reg_dm_mr",
       [&] { return made(region = ibv_reg_dm_mr(pd, dm, 0, 4096, IBV_ACCESS_ZERO_BASED)); },
       dereg});
  EXPECT_EQ(ibv_free_dm(dm), 0) << "a region that failed does not hold it";
}

TEST_F(NoMemoryTest, Completions) {
  ibv_comp_channel* channel = nullptr;
  expect_enomem_everywhere({"create_comp_channel",
                            [&] { return made(channel = ibv_create_comp_channel(context)); },
                            [&] { ibv_destroy_comp_channel(channel); }});
  channel = ibv_create_comp_channel(context);
  ibv_cq* queue = nullptr;
  const auto destroy = [&] { EXPECT_EQ(ibv_destroy_cq(queue), 0); };
  expect_enomem_everywhere(
      {"create_cq", [&] { return made(queue = ibv_create_cq(context, 64, nullptr, channel, 0)); },
       destroy});
  ibv_cq_init_attr_ex attr{};
  attr.cqe = 64;
  attr.wc_flags = IBV_WC_STANDARD_FLAGS;
  expect_enomem_everywhere({"create_cq_ex",
                            [&] {
                              ibv_cq_ex* ex = ibv_create_cq_ex(context, &attr);
                              queue = ex != nullptr ? ibv_cq_ex_to_cq(ex) : nullptr;
                              return made(queue);
                            },
                            destroy});
  queue = ibv_create_cq(context, 64, nullptr, channel, 0);
  expect_enomem_everywhere({"resize_cq", [&] { return ibv_resize_cq(queue, 500); },
                            [&] { EXPECT_EQ(ibv_resize_cq(queue, 64), 0); }});
  destroy();
  // Each CQ of a channel is promised its event when it is armed.
  std::vector<ibv_cq*> armed;
  for (int i = 0; i < 40; ++i) armed.push_back(ibv_create_cq(context, 1, nullptr, channel, 0));
  EXPECT_GE(fail_each({"req_notify_cq of 40",
                       [&] {
                         for (ibv_cq* one : armed) {
                           const int code = ibv_req_notify_cq(one, 0);
                           if (code != 0) return code;
                         }
                         return 0;
                       }}),
            1u);
  for (ibv_cq* one : armed) EXPECT_EQ(ibv_destroy_cq(one), 0);
  EXPECT_EQ(ibv_destroy_comp_channel(channel), 0);
}

TEST_F(NoMemoryTest, QueuePairs) {
  ibv_srq* srq = nullptr;
  ibv_srq_init_attr srq_attr{};
  srq_attr.attr = {.max_wr = 64, .max_sge = 2, .srq_limit = 0};
  expect_enomem_everywhere({"create_srq", [&] { return made(srq = ibv_create_srq(pd, &srq_attr)); },
                            [&] { EXPECT_EQ(ibv_destroy_srq(srq), 0); }});
  srq = ibv_create_srq(pd, &srq_attr);
  const auto resize_srq = [&](uint32_t size) {
    ibv_srq_attr attr{};
    attr.max_wr = size;
    return ibv_modify_srq(srq, &attr, IBV_SRQ_MAX_WR);
  };
  expect_enomem_everywhere(
      {"modify_srq", [&] { return resize_srq(500); }, [&] { EXPECT_EQ(resize_srq(64), 0); }});
  ibv_qp* qp = nullptr;
  for (const ibv_qp_type type : {IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD}) {
    for (ibv_srq* shared : {static_cast<ibv_srq*>(nullptr), srq}) {
      for (const bool extended : {false, true}) {
        expect_enomem_everywhere({extended ? "create_qp_ex with send_ops" : "create_qp_ex",
                                  [&] {
                                    ibv_qp_init_attr_ex attr = qp_attr(type, shared);
                                    if (extended) {
                                      attr.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
                                      attr.send_ops_flags = IBV_QP_EX_WITH_SEND;
                                    }
                                    return made(qp = ibv_create_qp_ex(context, &attr));
                                  },
                                  [&] { EXPECT_EQ(ibv_destroy_qp(qp), 0); }});
      }
    }
  }
  EXPECT_EQ(ibv_destroy_srq(srq), 0) << "a pair that failed does not hold it";
  // So many that the tables of deadlines and farewells grow.
  std::vector<ibv_qp*> many;
  expect_enomem_everywhere({"create_qp, 100 times",
                            [&] {
                              while (many.size() < 100) {
                                ibv_qp_init_attr_ex attr = qp_attr(IBV_QPT_RC);
                                ibv_qp* one = ibv_create_qp_ex(context, &attr);
                                if (one == nullptr) return errno;
                                many.push_back(one);
                              }
                              return 0;
                            },
                            [&] {
                              for (ibv_qp* one : many) ibv_destroy_qp(one);
                              many.clear();
                            }},
                           500);
}

TEST_F(NoMemoryTest, WaysAndAddresses) {
  ibv_qp* qp = make_qp({.depth = 16});
  ibv_qp_attr reset{};
  reset.qp_state = IBV_QPS_RESET;
  const auto rtr = [&] {
    ibv_qp_attr attr{};
    attr.qp_state = IBV_QPS_RTR;
    attr.path_mtu = IBV_MTU_1024;
    attr.dest_qp_num = qp->qp_num;
    attr.max_dest_rd_atomic = 16;
    attr.min_rnr_timer = 1;
    attr.ah_attr.dlid = lid;
    attr.ah_attr.port_num = 1;
    return ibv_modify_qp(qp, &attr,
                         IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                             IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
  };
  const auto begin = [&] {
    EXPECT_EQ(ibv_modify_qp(qp, &reset, IBV_QP_STATE), 0);
    to_init(qp);
  };
  begin();
  expect_enomem_everywhere({"modify_qp to RTR",
                            [&] {
                              const int code = rtr();
                              EXPECT_EQ(qp->state, code == 0 ? IBV_QPS_RTR : IBV_QPS_INIT);
                              return code;
                            },
                            begin});
  ibv_ah* ah = nullptr;
  ibv_ah_attr to{};
  to.dlid = lid;
  to.port_num = 1;
  expect_enomem_everywhere({"create_ah", [&] { return made(ah = ibv_create_ah(pd, &to)); },
                            [&] { EXPECT_EQ(ibv_destroy_ah(ah), 0); }});
}

// Posting, polling, arming and destroying go without memory, in every thread.
TEST_F(NoMemoryTest, TheDataPathAllocatesNothing) {
  ibv_comp_channel* channel = ibv_create_comp_channel(context);
  ibv_cq* armed = ibv_create_cq(context, 64, nullptr, channel, 0);
  ibv_qp* a = make_qp({.cq = armed});
  ibv_qp* b = make_qp({.cq = armed});
  connect(a, b);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));  // the progress thread has begun
  failing_memory::arm(1, Whose::kEveryThread);
  uint32_t came = 0;
  for (uint64_t i = 0; i < 1000; ++i) {
    EXPECT_EQ(ibv_req_notify_cq(armed, 0), 0);
    EXPECT_EQ(post_recv(b, i, sge(0, 8192)), 0);
    EXPECT_EQ(post_send(a, i, sge(16384, 8192)), 0);
    ibv_cq* cq_of = nullptr;
    void* user = nullptr;
    ASSERT_EQ(ibv_get_cq_event(channel, &cq_of, &user), 0);
    ibv_ack_cq_events(cq_of, 1);
    for (uint32_t got = 0; got < 2;) {
      ibv_wc wc;
      if (ibv_poll_cq(armed, 1, &wc) != 1) continue;
      ASSERT_EQ(wc.status, IBV_WC_SUCCESS);
      ++got;
      ++came;
    }
    // An event that came for the second completion.
    fcntl(channel->fd, F_SETFL, O_NONBLOCK);
    if (ibv_get_cq_event(channel, &cq_of, &user) == 0) ibv_ack_cq_events(cq_of, 1);
    fcntl(channel->fd, F_SETFL, 0);
  }
  for (ibv_qp* qp : {a, b}) EXPECT_EQ(ibv_destroy_qp(qp), 0);
  qps.clear();
  EXPECT_FALSE(failing_memory::disarm()) << "something was allocated on the way";
  EXPECT_EQ(came, 2000u);
  EXPECT_EQ(ibv_destroy_cq(armed), 0);
  EXPECT_EQ(ibv_destroy_comp_channel(channel), 0);
}

// Descriptors run out one by one: each verb that needs one says so, and works when there are some.
TEST_F(NoMemoryTest, WithoutDescriptorsToo) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  ibv_device* tbt0 = device();
  const int next = dup(0);
  close(next);
  uint32_t refused = 0;
  for (int more = 0; more < 4; ++more) {
    const rlimit few{static_cast<rlim_t>(next + more), before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
    ibv_comp_channel* channel = ibv_create_comp_channel(context);
    const int channel_error = errno;
    ibv_context* opened = ibv_open_device(tbt0);
    const int open_error = errno;
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    EXPECT_TRUE(channel != nullptr || channel_error == EMFILE) << channel_error;
    EXPECT_TRUE(opened != nullptr || open_error == EMFILE) << open_error;
    refused += (channel == nullptr ? 1 : 0) + (opened == nullptr ? 1 : 0);
    EXPECT_TRUE(channel == nullptr || ibv_destroy_comp_channel(channel) == 0);
    EXPECT_TRUE(opened == nullptr || ibv_close_device(opened) == 0);
    EXPECT_EQ(dup(0), next) << "a descriptor is left";
    close(next);
  }
  EXPECT_EQ(refused, 1u + 3u) << "a channel takes one, a device two";
}

}  // namespace
}  // namespace tbt::provider_live
