# Split models, by the commands.
add_test(NAME split/split COMMAND sh ${CMAKE_CURRENT_LIST_DIR}/test_split.sh $<TARGET_FILE:tessera> $<TARGET_FILE:test_receipt>
         WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
