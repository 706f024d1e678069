# Jobs of all strategies in one world, of which many are stopped or fail: 40 with the other tests,
# 300 with `make soak`.
add_executable(test_job parallel/test_job.c)
target_include_directories(test_job PRIVATE .)
target_link_libraries(test_job room_pipelines)
foreach(jobs 40 300)
  add_test(NAME parallel/job-${jobs}
           COMMAND ${MPIEXEC_EXECUTABLE} -n 4 $<TARGET_FILE:test_job> ${jobs} tests/cases/pipeline_sd3/model tests/cases/pipeline_sd15/model
                   no/such/lora.safetensors
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(parallel/job-${jobs} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
endforeach()

# Ranks that agree on how their own work went.
add_executable(test_share parallel/test_share.c)
target_include_directories(test_share PRIVATE .)
target_link_libraries(test_share room_pipelines)
foreach(ranks 2 3)
  add_test(NAME parallel/share-${ranks} COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} --oversubscribe $<TARGET_FILE:test_share>)
  set_tests_properties(parallel/share-${ranks} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
endforeach()
